"""Content codings of passing bodies, undone for looking only: gzip, deflate, br and zstd, and several of them.

A room beside `wire` and not in it, because `wire` has only the standard library, which knows no br, and zstd only from
Python 3.14 on. What is read here is never what goes to the other side: that gets the bytes as they came.

`decode` is the way in, and holds the bounds; `stages` has one class for each way of coding; `account` says how much the
decoders of a process may hold together.
"""
