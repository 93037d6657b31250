"""One HTTP/1.x response as it comes in: bytes → head, body pieces, end. No sockets, no clocks.

`ResponseReader.feed()` takes whatever the socket gave. llhttp (through httptools) reads the head, the chunk framing and
the small bodies; a body that goes on after the segment of its head and whose end is a plain count (Content-Length) or
the end of the connection is not shown to llhttp any more: the segment itself becomes the piece, without a copy.

llhttp in its strict mode refuses on its own: bare CR or LF, NUL and other control characters in header values,
obs-fold, a space before the colon, several or malformed Content-Lengths, Content-Length beside Transfer-Encoding,
malformed chunks. The rest of what a gateway must refuse (RFC 9112 §6.1, §6.3, §11.1) is refused here; all of it is a
`ResponseError`.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_BYTES_MAX: Final = 65536
"""Of the final head and the 1xx before it together. Real heads have 1 to 4 KiB; Envoy stops at 60 KiB."""
HEADERS_MAX: Final = 256
"""Real answers have 10 to 40; Envoy stops at 100, llhttp nowhere."""
INTERIM_MAX: Final = 16
"""1xx answers before the final one. Servers send one 100 and at most a few 102 or 103."""
FRAMING_BYTES_MAX: Final = 65536
"""Chunk extensions and trailers in a row without a byte of body. Dropped, but httptools holds the current one."""

Framing = Literal["length", "chunked", "eof", "none"]

JOIN_BYTES: Final = 65536
"""Small pieces are taken together up to this; joining more costs more than the write that it saves."""

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_UNTIL_EOF: Final = 1 << 62


class ResponseError(ValueError):
    """What the upstream sent is not an HTTP/1.x response that a gateway may pass on; the text says why."""


@dataclass(slots=True)
class ResponseHead:
    """Status line and headers of the final (not 1xx) response. Shared with whoever reads it: not to be changed."""

    status: int
    """200..599."""
    reason: bytes
    """As it came; may be empty."""
    http_version: str
    """`1.1` or `1.0`."""
    headers: list[tuple[bytes, bytes]]
    """Name and value exactly as they came, in their order, hop-by-hop ones included."""
    content_length: int | None
    """As declared, also where no body follows it (HEAD, 304); None where it is not declared."""
    framing: Framing
    """How the body ends: after content_length bytes, with the last chunk, with the connection; `none`: no body."""
    keep_alive: bool
    """The upstream lets the connection serve another request afterwards."""
    content_type: bytes
    content_encoding: bytes
    """As they came, empty where they did not; of several lines the last, and of codings all, joined by commas."""
    connection: bytes | None
    """All `Connection` lines, joined by commas; None where there is none."""
    request_id: bytes | None = None
    """The upstream's name for the exchange: `x-request-id`, or Anthropic's `request-id`; None where it has none."""

    def first(self, name: bytes) -> bytes | None:
        """The first line of a name (in lower case), for what is asked of few answers; None: there is none."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class ResponseReader:
    """Reads one response after the other; `reset()` comes before each. One per connection.

    Callers read `head`, `pieces` and `complete` after a `feed()`, and `take()` pieces out.
    """

    __slots__ = (
        "_body_bytes",
        "_connection",
        "_content_encoding",
        "_content_type",
        "_direct_bytes",
        "_framing_bytes",
        "_head_bytes",
        "_head_request",
        "_headers",
        "_interim",
        "_length",
        "_parser",
        "_reason",
        "_request_id",
        "_transfer_encoding",
        "complete",
        "head",
        "held_bytes",
        "pieces",
        "surplus",
    )

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self.reset(head_request=False)

    def reset(self, *, head_request: bool) -> None:
        """Forget the last response, expect the next; `head_request`: it answers a HEAD, so it has no body."""
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        """Body bytes that came and were not taken yet, in order; none of them is empty."""
        self.held_bytes = 0
        """Sum of the lengths of `pieces`."""
        self.complete = False
        """The last byte of the body is in `pieces` or was."""
        self.surplus = False
        """Bytes came that belong to no response: the connection must not be used again."""
        self._head_request = head_request
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._length: bytes | None = None
        self._transfer_encoding: bytes | None = None
        self._connection: bytes | None = None
        self._request_id: bytes | None = None
        self._content_type = b""
        self._content_encoding = b""
        self._interim = 0
        self._head_bytes = 0
        self._framing_bytes = 0
        self._body_bytes = 0
        # body bytes still to be taken past llhttp; 0 while llhttp reads
        self._direct_bytes = 0

    @property
    def reusable(self) -> bool:
        """The response is over, nothing came after it and the upstream keeps the connection."""
        return self.complete and not self.surplus and self.head is not None and self.head.keep_alive

    def feed(self, data: bytes) -> None:
        """Take one segment. Raises ResponseError; what came before the fault is in `head` and `pieces` then."""
        if self.complete:
            self.surplus = True
        elif self._direct_bytes:
            self._take_direct(data)
        else:
            self._parse(data)

    def end(self) -> bool:
        """The upstream closed its side in good order. True if that ends the response, False if it cuts it off."""
        if self.head is not None and self.head.framing == "eof":
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """The pieces that came, joined as far as they fit into JOIN_BYTES; there is one at least."""
        pieces = self.pieces
        if len(pieces) == 1:
            data = pieces[0]
            pieces.clear()
            self.held_bytes = 0
            return data
        count, size = 1, len(pieces[0])
        while count < len(pieces) and size + len(pieces[count]) <= JOIN_BYTES:
            size += len(pieces[count])
            count += 1
        data = b"".join(pieces[:count])
        del pieces[:count]
        self.held_bytes -= size
        return data

    def close(self) -> None:
        """No `feed()` will follow: lets go of the parser, whose callbacks refer back to this object."""
        self._parser = None

    # ---------------------------------------------------------------------------------------------------- with llhttp

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = HttpResponseParser(self)
        if self.head is None:
            self._head_bytes += len(data)
        body_bytes = self._body_bytes
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # Behind the end of a response everything is surplus, well-formed or not: it spoils the connection only.
            if not self.complete:
                raise self._fault(error) from None
            self.surplus = True
        if self.complete:
            return
        head = self.head
        if head is None:
            if self._head_bytes > HEAD_BYTES_MAX:
                raise ResponseError(f"response head over {HEAD_BYTES_MAX} bytes")
        elif head.framing == "chunked":
            self._count_framing(data, body_bytes)
        else:
            self._leave_parser(head)

    def _fault(self, error: Exception) -> ResponseError:
        cause = error.__context__  # httptools keeps here what one of our callbacks raised
        if isinstance(cause, ResponseError):
            return cause
        if cause is not None:
            raise cause
        if isinstance(error, HttpParserUpgrade):
            return ResponseError("status 101, though no upgrade was asked for")
        where = "head" if self.head is None else "body"
        return ResponseError(f"malformed response {where}: {error}")

    # ------------------------------------------------------------------------------------------------- past llhttp

    def _leave_parser(self, head: ResponseHead) -> None:
        """The rest of the body needs no parser: llhttp's copy of a segment costs 14 µs for 256 KiB and 1.3 µs for
        16 KiB, the new parser of the next response 0.8 µs."""
        self._direct_bytes = _UNTIL_EOF if head.content_length is None else head.content_length - self._body_bytes
        self._parser = None

    def _take_direct(self, data: bytes) -> None:
        left = self._direct_bytes - len(data)
        if left < 0:
            self.surplus = True
            data = data[:left]
            left = 0
        self.pieces.append(data)
        self.held_bytes += len(data)
        self._direct_bytes = left
        self.complete = left == 0

    def _count_framing(self, data: bytes, body_bytes_before: int) -> None:
        if self._body_bytes != body_bytes_before:
            self._framing_bytes = 0
            return
        self._framing_bytes += len(data)
        if self._framing_bytes > FRAMING_BYTES_MAX:
            raise ResponseError(f"chunk extensions or trailers over {FRAMING_BYTES_MAX} bytes")

    # ------------------------------------------------------------------------------------------- httptools callbacks

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is not None:
            return  # a trailer, or a response nobody asked for
        self._headers.append((name, value))
        # Only seven names matter here: told apart by their length, so that lower() is called for hardly another.
        length = len(name)
        if length == 14:
            if name.lower() == b"content-length":
                self._length = value
        elif length == 12:
            lowered = name.lower()
            if lowered == b"content-type":
                self._content_type = value
            elif lowered == b"x-request-id":
                self._request_id = value
        elif length == 16:
            if name.lower() == b"content-encoding":
                coded = self._content_encoding
                self._content_encoding = coded + b"," + value if coded else value
        elif length == 17:
            if name.lower() == b"transfer-encoding":
                before = self._transfer_encoding
                self._transfer_encoding = value if before is None else before + b"," + value
        elif length == 10:
            lowered = name.lower()
            if lowered == b"connection":
                before = self._connection
                self._connection = value if before is None else before + b"," + value
            elif lowered == b"request-id":
                self._request_id = value

    def on_headers_complete(self) -> None:
        if self.head is not None:
            return
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            self._drop_interim(status)
            return
        version = parser.get_http_version()
        self._check_head(status, version)
        length = self._length
        content_length = None if length is None else int(length)
        framing = self._framing(status, version)
        self.head = ResponseHead(
            status,
            self._reason,
            version,
            self._headers,
            content_length,
            framing,
            framing != "eof" and self._keeps_alive(version),
            self._content_type,
            self._content_encoding,
            self._connection,
            self._request_id,
        )
        if framing == "none" or (framing == "length" and content_length == 0):
            self.complete = True
            if self._head_request:
                self._parser = None  # it does not know that this answers a HEAD and may wait for a body

    def on_body(self, body: bytes) -> None:
        if self.complete:
            self.surplus = True
            return
        size = len(body)
        self.pieces.append(body)
        self.held_bytes += size
        self._body_bytes += size

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True

    # ------------------------------------------------------------------------------------------------- the head's rules

    def _drop_interim(self, status: int) -> None:
        if status < 100:
            raise ResponseError(f"status {status:03} is none of HTTP")
        if status == 101:
            raise ResponseError("status 101, though no upgrade was asked for")
        self._interim += 1
        if self._interim > INTERIM_MAX:
            raise ResponseError(f"more than {INTERIM_MAX} interim (1xx) responses")
        self._headers = []
        self._reason = b""
        self._length = self._transfer_encoding = self._connection = self._request_id = None
        self._content_type = self._content_encoding = b""

    def _check_head(self, status: int, version: str) -> None:
        if status > 599:
            raise ResponseError(f"status {status} is none of HTTP")
        if version not in {"1.1", "1.0"}:
            raise ResponseError(f"HTTP version {version} on an HTTP/1.1 connection")
        if self._reason != b"OK" and _CONTROL.search(self._reason):
            raise ResponseError("control character in the reason phrase")
        headers = self._headers
        if len(headers) > HEADERS_MAX:
            raise ResponseError(f"more than {HEADERS_MAX} response headers")
        # The segments so far may hold body too; only if they are more than a head may be, the head alone is counted.
        if self._head_bytes > HEAD_BYTES_MAX:
            head_bytes = len(self._reason) + sum(len(name) + len(value) + 4 for name, value in headers)
            if head_bytes > HEAD_BYTES_MAX:
                raise ResponseError(f"response head over {HEAD_BYTES_MAX} bytes")

    def _framing(self, status: int, version: str) -> Framing:
        coding = self._transfer_encoding
        if coding is not None:
            if version == "1.0":
                raise ResponseError("Transfer-Encoding in an HTTP/1.0 response")
            # llhttp, which reads the chunks, takes "chunked" with a tab behind it for another coding: so do we
            if coding.rstrip(b" ").lower() != b"chunked":
                raise ResponseError("Transfer-Encoding other than chunked")
        if self._head_request or status in {204, 304}:
            return "none"
        if coding is not None:
            return "chunked"
        return "eof" if self._length is None else "length"

    def _keeps_alive(self, version: str) -> bool:
        if self._connection is None:
            return version == "1.1"
        connection = self._connection.lower()
        if connection == b"keep-alive":
            return True
        options = {option.strip() for option in connection.split(b",")}
        return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
