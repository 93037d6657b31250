"""Which scanner looks at a body: by protocol, operation, content type and coding.

Each family of operations has a module, whose table `READERS` says what it reads.
"""

from functools import lru_cache

from observability.codings.decode import Decoder, UnreadableEncodingError, codings_of
from observability.findings import Findings
from observability.scanners import (
    anthropic,
    audio,
    dashscope,
    documents,
    images,
    openai,
    request,
    resources,
    responses,
    tasks,
)
from observability.scanners.base import DecodingScanner, JsonScanner, Reader, Scanner, SseScanner
from observability.scanners.request import FormScanner, RequestScanner
from observability.wire.json_paths import Paths
from observability.wire.multipart_fields import boundary_of

_PLAIN_CHARSETS = frozenset(("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1"))
_CACHED_TYPE_CHARS_MAX = 48
"""Of a content type: `application/json; charset=utf-8` has 31 characters, a form with its boundary 60 and more."""

_Framing = type[JsonScanner] | type[SseScanner]

_READERS: dict[tuple[str, str], type[Reader]] = {
    **openai.READERS,
    **images.READERS,
    **audio.READERS,
    **responses.READERS,
    **resources.READERS,
    **anthropic.READERS,
    **dashscope.READERS,
    **tasks.READERS,
    **documents.READERS,
}
"""By protocol and operation."""


def response_scanner(
    protocol: str,
    operation: str,
    content_type: str,
    status: int,
    content_encoding: str = "",
    *,
    choices: int | None = None,
) -> Scanner:
    """A scanner for the body of one response; the head's fields as received.

    `choices`: how many the request asked for, None where that is not known.

    Server-sent events and JSON are read. Other content says nothing that we know (it is whole when it ends), nor does
    an operation without a reader. A content coding that `codings` does not know: `findings.failed` from the start.
    """
    framing, reader = reading(protocol, operation, content_type)
    if framing is None or reader is None:
        return unread(status)
    meaning = reader(Findings())
    if choices is not None:
        meaning.expect(choices)
    scanner = framing(meaning)
    return behind(content_encoding, scanner) if content_encoding else scanner


def unread(status: int) -> Scanner:
    """A scanner for a body that says nothing that we know."""
    return Scanner(Findings()) if status < 400 else _ErrorPage(Findings())


def behind(content_encoding: str, scanner: Scanner) -> Scanner:
    """The scanner with what undoes a content coding in front of it, if there is one."""
    if not codings_of(content_encoding):
        return scanner
    try:
        return DecodingScanner(Decoder(content_encoding), scanner)
    except UnreadableEncodingError:
        scanner.switch_off()
        return scanner


def request_scanner(protocol: str, operation: str, content_type: str, content_encoding: str = "") -> RequestScanner:
    """A scanner for the body of one request; the head's fields as received.

    JSON is read, forms where the protocol has them, and either behind a content coding. Of other kinds everything stays
    unknown, as of operations whose bodies name no model; a coding that `codings` does not know, or a form without a
    clear boundary: `failed` from the start. All other operations of a protocol name their model alike.
    """
    # a form's boundary is new in each request, and a long type must not be kept 1024 times
    reading = _request_reading if len(content_type) <= _CACHED_TYPE_CHARS_MAX else _request_reading.__wrapped__
    paths, is_form = reading(protocol, operation, content_type)
    scanner = FormScanner(boundary_of(content_type)) if is_form else RequestScanner(paths)
    if content_encoding:
        scanner.decode(content_encoding)
    return scanner


@lru_cache(maxsize=1024)  # as below
def _request_reading(protocol: str, operation: str, content_type: str) -> tuple[Paths | None, bool]:
    """What is wanted of JSON; and whether the body is a form that is read."""
    kind = media_type(content_type)
    return (
        request.paths_of(protocol, operation) if is_json(kind) else None,
        is_form(kind) and request.has_forms(protocol, operation),
    )


@lru_cache(maxsize=1024)  # both sides choose what they write as content type: bounded, and usually one entry
def reading(protocol: str, operation: str, content_type: str) -> tuple[_Framing | None, type[Reader] | None]:
    """How content of this type is framed and who reads it; None where nobody does."""
    kind = media_type(content_type)
    reader = _READERS.get((protocol, operation))
    if reader is None:
        return None, None
    if kind == "text/event-stream":
        return SseScanner, reader
    return (JsonScanner, reader) if is_json(kind) and (kind or reader.untyped_is_json) else (None, None)


class _ErrorPage(Scanner):
    """The body of an error that is not JSON: whole when it ends, and no output."""

    __slots__ = ()

    def _take(self, data: bytes) -> None:
        pass


def media_type(content_type: str) -> str:
    """The type without parameters, in lower case."""
    if content_type == "application/json":  # as most servers write it
        return content_type
    return content_type.partition(";")[0].strip().lower()


def reads_alike(content_type: str) -> bool:
    """Do all servers read the text as we do? A charset in which other bytes are ASCII (utf-7, utf-16) may say other
    things to those that heed it, as aiohttp does for JSON."""
    if "charset" not in content_type.lower():
        return True
    _, *parameters = content_type.lower().split(";")
    values = [
        value.strip(" \t\"'") for name, _, value in (one.partition("=") for one in parameters) if "charset" in name
    ]
    return _PLAIN_CHARSETS.issuperset(values)


def is_form(kind: str) -> bool:
    """Of a form whose parts are read."""
    return kind == "multipart/form-data"


def is_json(kind: str) -> bool:
    """A missing type counts: small internal servers leave it out, and these operations answer with nothing else."""
    return kind in ("", "application/json") or kind.endswith("+json")
