"""What is wrong in a configuration file, told so that it can be put right: path, what is wrong, what would be right.

Validators raise `wrong_value(wrong, right)`; pydantic's own complaints are translated here. A value is shown only
where it cannot be a secret: not at a secret's place, and not when it came out of the environment or a file.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import ErrorDetails, PydanticCustomError

SECRETS: Final = frozenset(
    {("admin", "token"), ("services", "api_keys"), ("services", "headers"), ("services", "egress_proxy")}
    | {("consumers", "keys")}
)
"""Where secrets stand in the file: the path's first two names."""

SHOWN_CHARACTERS: Final = 60
"""Of a wrong value: enough to recognise it, and one line stays one line."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong. Its text is one line."""

    path: str
    """In the file: `services[0].base_url`; of the file as a whole (it is not there, or no YAML) its name."""
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}; {self.right}"


class ConfigError(Exception):
    """The file cannot be used. `complaints` has all that is wrong with it: first the values, then what joins them."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        super().__init__(complaints)
        self.complaints = list(complaints)

    def __str__(self) -> str:
        return "\n".join(str(complaint) for complaint in self.complaints)


class Supplied(str):
    """A text that the environment or a file supplied: never shown; a number or a switch where one is due."""

    __slots__ = ()


def wrong_value(wrong: str, right: str) -> PydanticCustomError:
    """What a validator raises. Where the text says `{value}`, the complaint shows the value, unless it is secret."""
    return PydanticCustomError("complaint", "{wrong}; {right}", {"wrong": wrong, "right": right})


def path_text(location: Iterable[str | int]) -> str:
    """`("services", 0, "base_url")` → `services[0].base_url`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text or "(the file)"


def is_secret(location: Iterable[str | int]) -> bool:
    """Whether a secret stands at this place of the file."""
    return tuple(step for step in location if isinstance(step, str))[:2] in SECRETS


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one was probably meant to be."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def near_miss(name: str, known: Iterable[str]) -> str:
    """What would be right instead of an unknown name: the nearest known one, else all of them."""
    names = list(known)
    near = nearest(name, names)
    if not names:
        return "the file has none"
    if near is not None:
        return f"did you mean {near}?"
    return f"use one of {', '.join(names)}" if len(names) > 1 else f"use {names[0]}"


def shown(value: object, location: Sequence[str | int] = ()) -> str:
    """A value for a complaint; a description of it where it may be a secret or is no plain value."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, Supplied) or is_secret(location):
        return "the value (not shown)"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


_EXPECTED: Final[dict[str, str]] = {
    "string_type": "text is expected; put a number or a date in quotes",
    "int_type": "a whole number is expected",
    "float_type": "a number is expected",
    "bool_type": "true or false is expected",
    "list_type": "a list is expected: [a, b], or lines that begin with a dash",
    "dict_type": "a mapping is expected: lines of `key: value`",
    "model_type": "a mapping is expected: lines of `key: value`",
}

_FACTORS: Final = {
    "_ms": {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000},
    "_bytes": {"b": 1}
    | {letter + rest: 1024**power for power, letter in enumerate("kmg", 1) for rest in ("", "b", "ib")},
}
"""Of units that people write, in the unit of the keys that end so. A megabyte is 1024 x 1024 bytes, as in nginx."""
_NOUNS: Final = {"_ms": "milliseconds", "_bytes": "bytes"}
_QUANTITY: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})")
_SWITCHES: Final = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


def translated(error: ErrorDetails, known_keys: Iterable[str]) -> Complaint:
    """A complaint of pydantic's as one of ours. `known_keys` are those of the mapping that the error is in."""
    location = error["loc"]
    if location[-1:] == ("[key]",):  # pydantic's way to say that a mapping's key is meant, not its value
        location = location[:-1]
    path = path_text(location)
    context = error.get("ctx", {})
    kind = error["type"]
    value = shown(error["input"], location)
    if kind == "complaint":
        return Complaint(path, context["wrong"].replace("{value}", value), context["right"])
    if kind == "extra_forbidden":
        return Complaint(path, "this key is unknown", near_miss(str(location[-1]), known_keys))
    if kind == "missing":
        return Complaint(path, "this key is missing", "it has no default and must be given")
    if kind in ("greater_than_equal", "less_than_equal"):
        bound, word = (context["ge"], "least") if "ge" in context else (context["le"], "most")
        return Complaint(path, f"{value} is out of range", f"it must be at {word} {bound}")
    if kind in ("list_type", "dict_type", "model_type") and error["input"] is None:
        return Complaint(path, "there is nothing under it", f"leave the key out, or give it entries: {_EXPECTED[kind]}")
    if kind in _EXPECTED:
        right = _EXPECTED[kind] + _meant(kind, str(location[-1]) if location else "", error["input"])
        return Complaint(path, f"{value} is not possible", right)
    return Complaint(path, f"{value} is not possible", _first_lower(str(error["msg"])))


def _meant(kind: str, key: str, value: object) -> str:
    """What a text in place of a number or a switch was probably meant to be; empty where that cannot be told."""
    if type(value) is not str:  # Supplied: it is not shown
        return ""
    if kind == "bool_type" and value.lower() in _SWITCHES:
        return f", without quotes: {_SWITCHES[value.lower()]}"
    quantity = _QUANTITY.fullmatch(value.strip()) if kind == "int_type" else None
    if quantity is None:
        return ""
    number, unit = quantity.groups()
    if not unit:
        return "" if "." in number else f", without quotes: {number}"
    ending = next((ending for ending in _FACTORS if key.endswith(ending)), None)
    factor = _FACTORS[ending].get(unit.lower()) if ending is not None else None
    if ending is None or factor is None:
        return ""
    return f", in {_NOUNS[ending]}: {round(float(number) * factor)}"


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]
