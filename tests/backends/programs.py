"""Where the programs are, and how they are started."""

import os
import shutil

import pytest

FOLDER = "REAL_BACKENDS"
"""The environment variable that names the folder of the programs; else they are looked for on PATH."""
START_S = 120.0
"""Bound of a start: Phoenix takes ten seconds on a quiet machine, most of them for imports."""


def backend(name: str) -> str:
    """The path of a program; skips the test that asks where it is missing."""
    path = shutil.which(name, path=os.environ.get(FOLDER)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: make backends, or {FOLDER}=its folder")
    return path
