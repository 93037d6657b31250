"""The values of the configuration file that are more than a number or a text: each with its check, as pydantic types.

A check raises `wrong_value(wrong, right)` and never repeats a secret. What the environment supplies is text; where a
number or a switch is due, and only then, it is read as one (`Supplied`). In the file itself `"4"` is not a number.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BeforeValidator, Field

from observability.redaction import (
    PATTERN_CHARACTERS_MAX,
    PATTERNS_BYTES_MAX,
    PATTERNS_MAX,
    PatternError,
    compile_own,
)
from proxy.config.complaints import SHOWN_CHARACTERS, Supplied, near_miss, shown, wrong_value
from proxy.translate.models import KINDS, kind_of_path

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_CALL_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_DIGEST_KEY: Final = re.compile(r"sha256:[0-9a-fA-F]{64}")

OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""Header lines that the gateway writes, or that belong to one connection: not for `headers` of a service."""

_T = TypeVar("_T")

COUNT_MAX: Final = 2**63 - 1
"""Of every number in the file: what is larger is a slip, and would not fit where numbers are kept."""

PROCESSES_MAX: Final = 1024
"""Workers or observers of one host: above the cores of any machine this was tried on."""

MS_MAX: Final = 86_400_000
"""Of every time in the file: a day. What waits longer than that waits for nobody."""

MODEL_CHARACTERS_MAX: Final = 256
"""Of a model's name or a pattern for names. The longest seen, a fine-tuned model's with its organisation, has 90; a
pattern is tried on names that anybody may send, at the cost of its length times the name's."""

TARGETS_MAX: Final = 1000
"""In one list of targets: patterns are tried one after the other, and a thousand of them take 0.1 ms of a request."""

WEIGHT_MAX: Final = 1_000_000
"""Shares as fine as one in a million; what is larger is a slip."""

FRONT_MAX: Final = 1000
"""Trusted proxies, or origins: a list that a person can still judge. The largest CDN has some hundred networks."""

CONTENT_BYTES_MAX: Final = 1 << 20
"""Of recorded content, each side: two of these are a line and a span, and collectors take messages of 4 MiB."""

ATTEMPTS_MAX: Final = 64
"""Of one request: each is held in its record and is a span. More keys or services than that are tried by no one
request."""


def later(default: Any, feature: str) -> AfterValidator:
    """Refuse any value but the default: the key is in the contract, its feature is not built yet."""

    def refuse(value: Any) -> Any:
        if value != default:
            raise wrong_value(
                f"{feature} is not built yet", f"leave the key out, or give it its default {_yaml(default)}"
            )
        return value

    return AfterValidator(refuse)


def one_of(built: Iterable[str], planned: Iterable[str] = ()) -> AfterValidator:
    """A name out of a list; `planned` ones are known to the contract and refused as not built yet."""
    possible, known = tuple(built), (*built, *planned)

    def check(value: str) -> str:
        if value in possible:
            return value
        if value in known:
            raise wrong_value(f"{value} is not built yet", "use " + " or ".join(possible))
        raise wrong_value("{value} is unknown", near_miss(value, possible))

    return AfterValidator(check)


def digest_of_key(key: str) -> bytes:
    """What a consumer's key is found by: the SHA-256 of a plain key, or the one that `sha256:<hex>` gives."""
    if _DIGEST_KEY.fullmatch(key):
        return bytes.fromhex(key.removeprefix("sha256:"))
    return sha256(key.encode()).digest()


def is_name(text: str) -> bool:
    """Whether a service, a consumer or a Model API may be called so."""
    return _NAME.fullmatch(text) is not None


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _number(value: Any) -> Any:
    if isinstance(value, Supplied) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    return value


def _switch(value: Any) -> Any:
    if isinstance(value, Supplied) and value in ("true", "false"):
        return value == "true"
    return value


def _processes(value: Any) -> Any:
    number = _number(value)
    if value == "auto" or (type(number) is int and 1 <= number <= PROCESSES_MAX):
        return number
    right = f"use auto, or a number from 1 to {PROCESSES_MAX}"
    if type(value) is str and value.isascii() and value.isdigit():
        right += f", without quotes: {value[:SHOWN_CHARACTERS]}"
    raise wrong_value("{value} is not possible", right)


def _name(value: str) -> str:
    if not is_name(value):
        raise wrong_value("{value} is no name", "use 1 to 64 letters, digits, _ and -")
    return value


def _key(value: str) -> str:
    if not value:
        raise wrong_value("the key is empty", "give it, or leave it out of the list; is its variable set?")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise wrong_value("the key has characters that cannot stand in a header", "use visible ASCII characters")
    return value


def _consumer_key(value: str) -> str:
    if value.startswith("sha256:") and not _DIGEST_KEY.fullmatch(value):
        raise wrong_value("the digest is not 64 hexadecimal digits", "write sha256: and what `sha256sum` prints")
    return _key(value)


def _token(value: str) -> str:
    return _key(value) if value else ""  # ${NAME:-}, and NAME is not set


def _header_name(value: str) -> str:
    lowered = value.lower()
    if not _HEADER_NAME.fullmatch(value):
        raise wrong_value("{value} is no header name", "use letters, digits and -")
    if lowered in OWN_HEADERS or lowered.startswith("x-sluiceway-"):
        raise wrong_value(f"the gateway itself writes {lowered}", "leave it out")
    return lowered


def _headers(value: Any) -> Any:
    """One line each: of two spellings the later would silently win."""
    spellings: dict[str, str] = {}
    for name in value if isinstance(value, dict) else ():
        first = spellings.setdefault(name.lower(), name) if isinstance(name, str) else name
        if first != name:
            raise wrong_value(f"{shown(first)} and {shown(name)} are one header", "keep one of them")
    return value


def _routing(value: Any) -> Any:
    """A target where the way to it is expected."""
    target = {"service": value} if isinstance(value, str) else value
    if not isinstance(target, dict) or "service" not in target or not target.keys() <= {"service", "model"}:
        return value
    right = ", ".join(
        f"{key}: {name if type(name) is str and _PLAIN.fullmatch(name) else key.upper()}"
        for key in ("service", "model")
        if (name := target.get(key)) is not None
    )
    raise wrong_value("it names a service, and not how one is chosen", f"write routing: {{single: {{{right}}}}}")


def _header_value(value: str) -> str:
    if any(not (character == "\t" or " " <= character <= "~") for character in value):
        raise wrong_value("the value has characters that cannot stand in a header", "use one line of ASCII")
    return value.strip()


def _state(value: str) -> str:
    if value.startswith(("redis://", "rediss://")):
        raise wrong_value("state in Redis is not built yet", "use sqlite:PATH")
    if not value.startswith("sqlite:") or value.removeprefix("sqlite:").rstrip("/") in ("", "."):
        raise wrong_value("{value} is no state", "use sqlite:PATH, such as sqlite:./.sluiceway/state.db")
    return value


def _model_name(value: str) -> str:
    if not value:
        raise wrong_value("the name is empty", "give the name of a model; null leaves the caller's")
    if len(value) > MODEL_CHARACTERS_MAX or not value.isprintable():
        raise wrong_value(
            "{value} is no name of a model", f"use at most {MODEL_CHARACTERS_MAX} characters, without line breaks"
        )
    return value


def _model_pattern(value: str) -> str:
    if not value:
        raise wrong_value("the pattern is empty", "give the name of a model, with ? and * for other characters")
    return _model_name(value)


def _image_path(value: str) -> str:
    if value in ("sync", "async"):
        return value
    try:
        kind_of_path(value)
    except KeyError:
        known = ", ".join(f"…/{end}" for end in KINDS)
        raise wrong_value("{value} is no way to make images", f"use sync, async or a path: {known}") from None
    if not _CALL_PATH.fullmatch(value):
        raise wrong_value("the path {value} is not usable", "write it from the slash, without empty or dot segments")
    return value


def _targets(value: list[_T]) -> list[_T]:
    if len(value) > TARGETS_MAX:
        raise wrong_value(f"the list has {len(value)} entries", f"use at most {TARGETS_MAX}; * stands for many models")
    return value


def _front(value: list[_T]) -> list[_T]:
    if len(value) > FRONT_MAX:
        raise wrong_value(f"the list has {len(value)} entries", f"use at most {FRONT_MAX}")
    return value


def _share(value: Any) -> Any:
    if isinstance(value, Supplied) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    if type(value) is int:
        return float(value)
    return value


def _pattern(value: str) -> str:
    if len(value) > PATTERN_CHARACTERS_MAX:
        raise wrong_value("the expression is too long", f"use at most {PATTERN_CHARACTERS_MAX} characters")
    try:
        compile_own(value)
    except PatternError as error:
        raise wrong_value(
            f"the expression cannot be used ({error})",
            "use one of RE2, which has no look-around and no back references, and finds something",
        ) from None
    return value


def _redact(value: list[_T]) -> list[_T]:
    if len(value) > PATTERNS_MAX:
        raise wrong_value(f"the list has {len(value)} entries", f"use at most {PATTERNS_MAX}")
    if (size := len(orjson.dumps(value))) > PATTERNS_BYTES_MAX:
        raise wrong_value(f"the expressions have {size} bytes", f"use at most {PATTERNS_BYTES_MAX} for all of them")
    return value


Whole = Annotated[int, Field(ge=0, le=COUNT_MAX), BeforeValidator(_number)]
"""0, 1, 2, …"""
Positive = Annotated[int, Field(ge=1, le=COUNT_MAX), BeforeValidator(_number)]
ContentBytes = Annotated[int, Field(ge=0, le=CONTENT_BYTES_MAX), BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_share)]
"""From 0, nothing, to 1, everything."""
Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression of RE2."""
HeadBytes = Annotated[int, Field(ge=1024, le=1_048_576), BeforeValidator(_number)]
"""Less leaves no room for a real client's headers; more only helps an attacker: others stop at 8 to 64 KiB."""
Milliseconds = Annotated[int, Field(ge=0, le=MS_MAX), BeforeValidator(_number)]
PositiveMilliseconds = Annotated[int, Field(ge=1, le=MS_MAX), BeforeValidator(_number)]
Weight = Annotated[int, Field(ge=0, le=WEIGHT_MAX), BeforeValidator(_number)]
Attempts = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX), BeforeValidator(_number)]
FailureStatus = Annotated[int, Field(ge=400, le=599), BeforeValidator(_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Processes = Annotated[int | Literal["auto"], BeforeValidator(_processes)]
Name = Annotated[str, AfterValidator(_name)]
Key = Annotated[str, AfterValidator(_key)]
ConsumerKey = Annotated[str, AfterValidator(_consumer_key)]
Token = Annotated[str, BeforeValidator(lambda value: "" if value is None else value), AfterValidator(_token)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
State = Annotated[str, AfterValidator(_state)]
ModelName = Annotated[str, AfterValidator(_model_name)]
ModelPattern = Annotated[str, AfterValidator(_model_pattern)]
ImagePath = Annotated[str, AfterValidator(_image_path)]
headers: Final = BeforeValidator(_headers)
"""Of a mapping of header lines."""
routing: Final = BeforeValidator(_routing)
"""Of `routing`."""
targets: Final = AfterValidator(_targets)
"""Of a list of targets."""
redact: Final = AfterValidator(_redact)
"""Of `redact`."""
front: Final = AfterValidator(_front)
"""Of `trusted_proxies` and `cors.origins`."""
