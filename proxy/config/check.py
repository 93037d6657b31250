"""`sluiceway check`: what is wrong with a configuration file, one line per complaint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from proxy.config.file import ConfigError, load

GOOD: Final = 0
BAD: Final = 2


def check(path: Path | str, environ: Mapping[str, str], out: TextIO) -> int:
    """Read the file as `serve` would and write every complaint to `out`. Returns the exit code: 0, or 2."""
    try:
        document = load(path, environ)
    except ConfigError as error:
        out.writelines(f"{complaint}\n" for complaint in error.complaints)
        return BAD
    services, model_apis = len(document.services), len(document.model_apis)
    plurals = "" if services == 1 else "s", "" if model_apis == 1 else "s"
    out.write(f"{path}: good ({services} service{plurals[0]}, {model_apis} Model API{plurals[1]})\n")
    return GOOD
