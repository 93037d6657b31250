"""The configuration file, read: YAML text → `Document`, or every complaint about it at once.

Steps: YAML to plain values (a doubled key is an error); the environment and files into texts (`${NAME}`,
`${NAME:-default}`, and `file:PATH` where a secret stands), value by value, so that what they supply can never become
structure; the models, one value at a time; then how the parts fit together, over whatever parts are sound.
Relative paths are relative to the working directory of the process.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from proxy.config.complaints import Complaint, ConfigError, Supplied, is_secret, nearest, path_text, translated
from proxy.config.crosscheck import Parts, cross_check, parts_of, spool_of
from proxy.config.model import (
    Admin,
    ConsumerConfig,
    Document,
    Limits,
    ListenerTls,
    ModelApiConfig,
    Section,
    ServiceConfig,
)
from proxy.config.prices import unknown_services
from proxy.config.values import COUNT_MAX, is_name
from proxy.config.yaml_text import plain_values

__all__ = ["Complaint", "ConfigError", "load", "parse", "read", "validated"]

DEPTH_MAX: Final = 32
"""Of nested mappings and lists: the deepest key of the contract is at 5; an alias that contains itself has no end."""

VALUES_MAX: Final = 250_000
"""In one file, aliases followed: ten times what a thousand Model APIs need; nested aliases could mean billions."""

FILE_BYTES_MAX: Final = 16 << 20
"""Of the configuration: VALUES_MAX of them with 64 bytes each."""

SECRET_FILE_BYTES_MAX: Final = 65_536
"""A key or a token is far smaller; `file:/dev/zero` would not end."""

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_UNKNOWN: Final = object()
"""Stands for a value whose reference leads nowhere: of no type, so that nothing further is concluded from it."""
_Location = tuple[str | int, ...]
_S = TypeVar("_S", bound=Section)


def load(path: Path | str, environ: Mapping[str, str], *, starting: bool = False) -> Document:
    """Read a file. `starting` looks at the machine too (can `spool_dir` be written?): for the start of a gateway, and
    not for a process of one that runs, which is better off without a folder than not at all.

    Raises ConfigError with everything that is wrong, including a file that cannot be read.
    """
    return parse(_text_of(path), environ, path, starting=starting)


def read(
    path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any], *, starting: bool = False, again: bool = False
) -> tuple[str, Document]:
    """The text as written, and what it says with `overrides` in place of its own keys. Raises ConfigError.

    The text must be good by itself too: restarted processes read it without the overrides, which are the supervisor's.
    `again`: by a gateway that runs, which no pipe may keep waiting.
    """
    text = _text_of(path, again=again)
    document = parse(text, environ, path, starting=starting)
    return text, parse(text, environ, path, overrides, starting=starting) if overrides else document


def validated(plain: Mapping[str, Any]) -> Document:
    """A document that went through `Document.model_dump`, as the other side of a link gets it. Raises ConfigError where
    this process cannot do with it what the one before could: a file that it names is gone, for example."""
    try:
        return Document.model_validate(plain)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise ConfigError([translated(one, _known_keys(one["loc"])) for one in found]) from None


def _text_of(path: Path | str, *, again: bool = False) -> str:
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if again else 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            if again and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError([Complaint(str(path), "it is no file that can be read again", "put one there")])
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            wrong = f"it has more than {FILE_BYTES_MAX >> 20} MiB"
            raise ConfigError([Complaint(str(path), wrong, "name a configuration file")])
        return content.decode()
    except OSError as error:
        raise ConfigError(
            [Complaint(str(path), f"it cannot be read ({error.strerror})", "name a readable file")]
        ) from None
    except UnicodeDecodeError:
        raise ConfigError([Complaint(str(path), "it is not UTF-8 text", "save it as UTF-8")]) from None


def parse(
    text: str,
    environ: Mapping[str, str],
    where: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    starting: bool = False,
) -> Document:
    """Read the text of a file. `where` names it in complaints about the file as a whole; `overrides` replace top-level
    keys, for options of the command line; `starting` as for `load`. Raises ConfigError."""
    raw = plain_values(text, where)
    if not isinstance(raw, dict):
        right = "begin with keys such as services: and model_apis:"
        what = "the file is empty" if raw is None else "the file is no mapping of keys to values"
        raise ConfigError([Complaint(str(where), what, right)])
    raw.update(overrides or {})
    reading = _Reading(environ)
    raw = reading.resolved(raw, ())
    document: Document | None = None
    found: list[Complaint] = []
    try:
        document = Document.model_validate(raw)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        found = [translated(one, _known_keys(one["loc"])) for one in errors if not reading.told(one["loc"])]
    fitting = cross_check(parts_of(document) if document else _sound_parts(raw), environ, starting=starting)
    if document is not None and document.prices is not None:
        priced = [entry.service for entry in document.prices.models]
        fitting += unknown_services(priced, frozenset(service.name for service in document.services))
    if document is None or found or fitting or reading.complaints:
        raise ConfigError([*reading.complaints, *found, *fitting])
    return document


class _Reading:
    """Resolves references in the values of one file, and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._bad: set[_Location] = set()
        self._values_left = VALUES_MAX
        self.complaints: list[Complaint] = []

    def told(self, location: Iterable[str | int]) -> bool:
        """Whether a value is complained about already: what it would have been is unknown."""
        return tuple(location) in self._bad

    def resolved(self, value: Any, at: _Location) -> Any:
        """A value with every reference in it resolved."""
        self._values_left -= 1
        if self._values_left < 0:
            right = "use fewer aliases"
            raise ConfigError([Complaint(path_text(at[:1]), f"the file has more than {VALUES_MAX} values", right)])
        if isinstance(value, str):
            return self._text(value, at)
        if isinstance(value, int) and abs(value) > COUNT_MAX:  # Python would not even write some of them out
            self._complain(at, "the number is too large", f"no number of the file is above {COUNT_MAX}")
            return _UNKNOWN
        if len(at) > DEPTH_MAX:
            self._complain(at[:3], "it is nested too deeply", f"the file has at most {DEPTH_MAX} levels")
            return _UNKNOWN
        if isinstance(value, list):
            return [self.resolved(item, (*at, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.resolved(item, (*at, key)) for key, item in value.items() if self._is_key(key, at)}
        return value

    def _complain(self, at: _Location, wrong: str, right: str) -> None:
        if at not in self._bad:
            self._bad.add(at)
            self.complaints.append(Complaint(path_text(at), wrong, right))

    def _is_key(self, key: object, at: _Location) -> bool:
        if isinstance(key, str) and _is_text(key):
            return True
        shown_key = ascii(key) if isinstance(key, str) else str(key)
        self._complain((*at, shown_key), "the key is no text", "put it in quotes")
        return False

    def _text(self, value: str, at: _Location) -> object:
        missing = [name for name, default in self._references(value) if default is None and name not in self._environ]
        if missing:
            name = missing[0]
            self._complain(at, f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}")
            return _UNKNOWN
        supplied = _REFERENCE.sub(self._value_of, value)
        if "${" in _REFERENCE.sub("", value):
            self._complain(at, "the reference with ${ is not complete", "write ${NAME} or ${NAME:-default}")
            return _UNKNOWN
        if not _is_text(supplied):
            self._complain(at, "it has half of a character (a lone surrogate)", "write the whole character")
            return _UNKNOWN
        result = Supplied(supplied) if _REFERENCE.search(value) else value
        if supplied.startswith("file:") and is_secret(at):
            return self._contents(supplied.removeprefix("file:"), at)
        return result

    def _references(self, value: str) -> list[tuple[str, str | None]]:
        return [(found.group(1), found.group(2)) for found in _REFERENCE.finditer(value)]

    def _value_of(self, found: re.Match[str]) -> str:
        name, default = found.group(1), found.group(2)
        given = self._environ.get(name)
        return given or default if default is not None else given or ""

    def _contents(self, name: str, at: _Location) -> object:
        try:
            with Path(name).open(encoding="utf-8") as file:
                text = file.read(SECRET_FILE_BYTES_MAX + 1)
        except OSError as error:
            self._complain(at, f"the file {name} cannot be read ({error.strerror})", "name a readable file")
        except ValueError:  # not UTF-8; or a name with a NUL
            self._complain(at, f"the file {name!r} is not text", "name a file that holds nothing but the secret")
        else:
            if len(text) <= SECRET_FILE_BYTES_MAX:
                return Supplied(text.strip())
            self._complain(at, f"the file {name} is too large", "name a file that holds nothing but the secret")
        return _UNKNOWN


def _is_text(value: str) -> bool:
    """Can it be written down? `"\\ud800"` in quotes makes half of a character, which nothing can carry."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _known_keys(location: Iterable[str | int]) -> tuple[str, ...]:
    """The keys of the mapping that a location's last step is in."""
    model: type[BaseModel] | None = Document
    for step in tuple(location)[:-1]:
        if isinstance(step, int):
            continue
        if model is None or step not in model.model_fields:
            return ()
        model = _model_in(model.model_fields[step].annotation)
    return tuple(model.model_fields) if model else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _sound_parts(raw: dict[str, Any]) -> Parts:
    """What can be said of the parts of a file that is broken somewhere."""
    document = _sound({key: value for key, value in raw.items() if key in ("listen", "allow_open")}, Document)
    holding = _sound({key: value for key, value in raw.items() if key in ("spool_dir", "limits")}, Document)
    limits = _sound(raw.get("limits", {}), Limits)
    tls = _sound(raw.get("tls", {}), ListenerTls)
    admin = _sound(raw.get("admin", {}), Admin)
    return Parts(
        listen=document.listen if document else None,
        admin_listen=admin.listen if admin else None,
        admin_token=admin.token if admin else "",
        allow_open=document.allow_open if document else True,
        tls=tls,
        spool=spool_of(holding) if holding else None,
        max_request_bytes=limits.max_request_bytes if limits else None,
        services=_entries(raw.get("services"), ServiceConfig),
        consumers=_entries(raw.get("consumers"), ConsumerConfig),
        model_apis=_entries(raw.get("model_apis"), ModelApiConfig),
        service_names=_names(raw, "services"),
        consumer_names=_names(raw, "consumers"),
    )


def _sound(raw: Any, model: type[_S]) -> _S | None:
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def _entries(raw: Any, model: type[_S]) -> list[_S | None]:
    return [_sound(entry, model) for entry in raw] if isinstance(raw, list) else []


def _names(raw: dict[str, Any], section: str) -> frozenset[str] | None:
    """The names of a section's entries; None where one cannot be told, or where the section may have another name."""
    unknown = [key for key in raw if key not in Document.model_fields]
    if any(nearest(key, Document.model_fields) == section for key in unknown):
        return None
    if section not in raw:
        return None if any(isinstance(raw[key], list) for key in unknown) else frozenset()
    if not isinstance(raw[section], list):
        return None
    entries = [entry.get("name") if isinstance(entry, dict) else None for entry in raw[section]]
    names = frozenset(name for name in entries if isinstance(name, str) and is_name(name))
    return names if all(name in names for name in entries) else None
