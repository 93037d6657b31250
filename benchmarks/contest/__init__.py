"""``make bench-all``: this gateway and others of its kind, side by side, under every workload that matters to us.

``python -m benchmarks.contest``; the modules from the outside in:

* `__main__`: the command; `run`: one whole run, in order; `judge`: what was to be reached and whether it was;
* `report`, `charts`, `figures`: RESULTS.md and its pictures from a run's JSON, and the medians in them;
* `workloads`: what is asked, at which points; `measure`: one measurement, with `watch` on processor time and memory;
* `check`: whether a contestant does what it is measured for;
* `contestants`: how each is started and what it does; `configurations`: their files; `environments`: their programs;
* `upstream`, `client`: what is measured with, plain sockets and epoll; `asked`: what one asks and the other answers;
  `outcome`: what came of it; `clock`: a timer that epoll can wait for.
"""
