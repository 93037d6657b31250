"""Tracing backends and collectors of other makers, running for real: what they read of that which the gateway sends.

`make backends` installs them, in an environment of their own, and runs these tests; without it they are skipped, as in
CI: the programs have 900 MB. Phoenix is asked over its own API what it shows; rotel hands on what it took.
"""
