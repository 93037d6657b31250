"""The standard descriptors 0 to 2: there, whatever the parent did with them.

Started with one of them closed (`>&-`, some init scripts), a process would be given its number for the next file that
it opens, and log lines would be written into a socket, or into the board.
"""

import os
import sys
from typing import Final

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_standard_descriptors() -> None:
    """Open the null device on those that are closed. The first thing that a process does."""
    for fd, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one, since those below it are taken
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:  # so the interpreter has it where the descriptor was closed at its start
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
