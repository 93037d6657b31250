"""`sluiceway check`: what is wrong with a configuration file, one line per complaint; else what is odd about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from proxy.config.advice import advice
from proxy.config.file import ConfigError, load

GOOD: Final = 0
BAD: Final = 2


def check(path: Path | str, environ: Mapping[str, str], out: TextIO) -> int:
    """Read the file as `serve` would and write every complaint to `out`, or every warning about a good file and what is
    in it. Returns the exit code: 0, or 2."""
    try:
        document = load(path, environ, starting=True)
    except ConfigError as error:
        out.writelines(f"{complaint}\n" for complaint in error.complaints)
        return BAD
    warnings = advice(document)
    out.writelines(f"warning: {warning}\n" for warning in warnings)
    counts = [
        _counted(len(document.services), "service"),
        _counted(len(document.consumers), "consumer"),
        _counted(len(document.model_apis), "Model API"),
    ]
    notes = f", {_counted(len(warnings), 'warning')}" if warnings else ""
    out.write(f"{path}: good ({', '.join(counts)}){notes}\n")
    return GOOD


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
