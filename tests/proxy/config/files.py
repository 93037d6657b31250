"""Configuration files for tests: the contract's, and a way to change one place of it."""

from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from proxy.config.complaints import Complaint, ConfigError
from proxy.config.file import parse

CONTRACT = (Path(__file__).parent / "contract.yaml").read_text(encoding="utf-8")
ENVIRON = {"DASHSCOPE_API_KEY": "sk-dashscope", "SEARCH_TEAM_KEY": "sk-search"}

_RAW: dict[str, Any] = YAML(typ="safe", pure=True).load(CONTRACT)


def changed(*changes: tuple[str, Any]) -> str:
    """The contract's file with values at dotted paths replaced or added: ("services.0.name", "x")."""
    raw = deepcopy(_RAW)
    for path, value in changes:
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        place: Any = raw
        for step in steps:
            place = place[step]
        if isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    out = StringIO()
    YAML(typ="safe", pure=True).dump(raw, out)
    return out.getvalue()


def complaints(text: str, environ: dict[str, str] | None = None, *, starting: bool = True) -> list[Complaint]:
    """What is wrong with a file; where a gateway starts with it, by default."""
    try:
        parse(text, ENVIRON if environ is None else environ, "sluiceway.yaml", starting=starting)
    except ConfigError as error:
        return error.complaints
    return []
