"""What the edge checks of a request's bytes before any parser may read them: strict heads, and where a body ends.

aiohttp's parser (llhttp) forgives shapes that a stricter server behind us reads differently: two spaces before the
target, `Transfer-Encoding: gzip, chunked`, a `Content_Length`. Two readings of one request is what request smuggling
is made of, so such a head is refused before it is parsed. And the edge feeds the parser one message at a time, so it
must know where a head ends (`HeadCollector`) and where a chunked body does: `ChunkedBody` follows the chunk lines
without touching the data between them.

Pure: bytes in, facts out; no sockets, no clocks. Source: RFC 9112 (§2.2, §3, §5, §6, §7.1), RFC 9110 §5.
"""

import re
from typing import Final

HEAD_END: Final = b"\r\n\r\n"

# method SP origin-form SP version; no fragment, no control or space in the target, nothing after the version.
_REQUEST_LINE: Final = re.compile(rb"(?!CONNECT )[A-Z][A-Z_-]{0,31} (?:/[^\x00-\x20#\x7f]*|\*) HTTP/1\.[01]\r\n")
# Whole header section in one match: token ":" value CRLF, no obs-fold, no space before the colon, no bare CR or LF.
# Possessive: 0.9 µs for eleven lines, where it was 1.5.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
# A path with a dot segment, literal or encoded, means one thing to us and may mean another behind us.
_DOT_SEGMENT: Final = re.compile(rb"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/?\\;]|%2f|%5c|$)", re.IGNORECASE)
# So does a path with a control character, or with a backslash, which some servers read as a slash.
_ODD_PATH: Final = re.compile(rb"\\|%(?:[01][0-9a-f]|7f|5c)", re.IGNORECASE)
# A host is a name or an address, and a port (RFC 9110 §7.2): in a path, a user or a list each finds another one.
_HOST: Final = re.compile(
    rb"\r\n[Hh][Oo][Ss][Tt]:[ \t]*(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?[ \t]*\r\n"
)
# `Connection` takes out what it names. Of these fields we read one request, and who gets it without them another.
_TAKEN_OUT: Final = re.compile(
    rb"\r\nconnection:(?:[^\r\n]*,)?[ \t]*"
    rb"(?:host|content-(?:length|type|encoding)|authorization|x-api-key|api-key)[ \t]*[,\r]"
)
# Some servers read "_" as "-" in header names (CGI's habit): then these would be framing or routing headers.
_UNDERSCORE_TWIN: Final = re.compile(
    rb"\r\n(?:content_(?:length|type|encoding)|transfer_encoding|proxy_authorization|x_api_key):"
)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_TRANSFER_ENCODING: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)")

MAX_EMPTY_LINES: Final = 2
"""Before a request line. A careless client sends one behind a body; each is a step that somebody else waits for."""
MAX_CHUNK_LINE_BYTES: Final = 256
"""Longest chunk-size line. A size has 16 hex digits at most; the rest is room for extensions, which nobody sends."""
MAX_TRAILER_BYTES: Final = 8192
"""Trailers are read and dropped, so a few lines are enough; beyond it somebody is holding the connection."""


def head_fault(head: bytes) -> str | None:
    """Why this complete request head (up to and with the empty line) is refused, or None where it is strict HTTP/1.x.

    The answer is a phrase for the client that names the rule and never repeats the head.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        return _request_line_fault(head)
    if not _FIELDS.fullmatch(head, line.end()):
        return "a header line is malformed (name, colon, value; no folding, no control characters, CRLF line ends)"
    first_space = head.index(b" ")
    target = head[first_space + 1 : line.end() - 11]
    if target == b"*":
        if head[:first_space] != b"OPTIONS":
            return "the target * is for OPTIONS only"
    elif b"." in target or b"%" in target or b"\\" in target:
        path = target.partition(b"?")[0]
        if _DOT_SEGMENT.search(path):
            return "the path has a dot segment"
        if _ODD_PATH.search(path):
            return "the path has a backslash or an encoded control character"
    # 36 bytes is more than the longest name sought; nearly all heads have neither, and lower() of a head costs 0.3 µs
    lowered = head.lower()
    # it is the first line of nearly all heads; where it is missing, the parser says so
    if not _HOST.match(head, line.end() - 2) and not _HOST.search(head, line.end() - 2) and b"\r\nhost:" in lowered:
        return "the Host is none (a name or an address, and perhaps a port)"
    connection = lowered.find(b"\r\nconnection:")
    if connection >= 0 and _TAKEN_OUT.search(lowered, connection):
        return "Connection names a field that belongs to the request"
    if b"transfer-encoding:" in lowered:
        return _transfer_encoding_fault(lowered, http_1_0=head[line.end() - 3 : line.end() - 2] == b"0")
    if b"_" in lowered and _UNDERSCORE_TWIN.search(lowered):
        return "a header name with an underscore would be read as a framing or credential header elsewhere"
    return None


def _request_line_fault(head: bytes) -> str:
    words = head.partition(b"\r\n")[0].split(b" ")
    if words[0] == b"CONNECT":
        return "CONNECT is not served here"
    if len(words) == 3 and not words[2].startswith(b"HTTP/1."):
        return "the HTTP version is not 1.1 or 1.0"
    return "the request line is malformed (METHOD /path HTTP/1.1, single spaces, no fragment, no scheme or host)"


def _transfer_encoding_fault(lowered: bytes, *, http_1_0: bool) -> str | None:
    codings = _TRANSFER_ENCODING.findall(lowered)
    if http_1_0:
        return "HTTP/1.0 has no Transfer-Encoding"
    if len(codings) != 1 or codings[0].rstrip(b" \t") != b"chunked":
        return "the only Transfer-Encoding served is a single chunked"
    if b"\r\ncontent-length:" in lowered:
        return "Transfer-Encoding and Content-Length exclude each other"
    return _twin_fault(lowered)


def _twin_fault(lowered: bytes) -> str | None:
    return (
        "a header name with an underscore would be read as a framing header elsewhere"
        if _UNDERSCORE_TWIN.search(lowered)
        else None
    )


class FramingError(ValueError):
    """A head or a chunked body is malformed; the text says how."""


class HeadTooLargeError(FramingError):
    """A head is larger than it may be."""


class HeadCollector:
    """Collects request heads, one after the other. Looks at each byte once, in however many pieces they come.

    Holds one unfinished head: `max_bytes` of it and the piece that goes beyond.
    """

    __slots__ = ("_empty_lines", "_held", "_max_bytes", "_searched")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._searched = 0  # bytes of `_held` that were looked at
        self._empty_lines = 0

    @property
    def begun(self) -> bool:
        """A head has begun to arrive; the empty lines before it do not count."""
        return bool(self._held)

    def take(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head that `data` (not empty) completes and what stands behind it, or None where more must come.

        Raises FramingError where the head is refused, as soon as it can be seen; HeadTooLargeError for its size.
        """
        if not self._held and data[0] != 13:
            end = data.find(HEAD_END)
            if end != -1:
                return self._whole(data, end + 4)
        held = self._held
        held += data
        while held.startswith(b"\r\n"):  # RFC 9112 §2.2: an empty line before the request line is ignored
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise FramingError("too many empty lines before the request line")
            del held[:2]
        end = held.find(HEAD_END, max(0, self._searched - 3))
        if end == -1:
            self._check_partial()
            return None
        data = bytes(held)
        self.clear()
        return self._whole(data, end + 4)

    def clear(self) -> None:
        """Forget what is held."""
        self._held.clear()
        self._searched = 0

    def _whole(self, data: bytes, end: int) -> tuple[bytes, bytes]:
        self._empty_lines = 0
        if end > self._max_bytes:
            raise HeadTooLargeError(f"the head is larger than {self._max_bytes} bytes")
        head = data[:end]
        fault = head_fault(head)
        if fault is not None:
            raise FramingError(fault)
        return head, data[end:]

    def _check_partial(self) -> None:
        """An incomplete head can be refused already: its size, a line that ends without CR, no request at all."""
        held = self._held
        if len(held) > self._max_bytes:
            raise HeadTooLargeError(f"the head is larger than {self._max_bytes} bytes")
        if not held or held == b"\r":  # or the half of an empty line
            return
        if _BARE_LF.search(held, self._searched):
            raise FramingError("a line ends with a bare LF")
        if not 65 <= held[0] <= 90:
            raise FramingError("this is not an HTTP/1.x request")
        self._searched = len(held)


class ChunkedBody:
    """Follows one chunked body and says where it ends. Holds at most one unfinished line.

    The trailers are judged here and shown to no parser: that of aiohttp 3.14 takes the last of them for the first
    header line of the next request, which may be somebody else's where a proxy before us shares its connections.
    """

    __slots__ = ("_in_trailers", "_line", "_skip", "_trailer_bytes", "chunks_end", "done")

    def __init__(self) -> None:
        self.done = False
        """The last chunk and the trailers were seen."""
        self.chunks_end = 0
        """Of the piece that was scanned last: what stands behind belongs to the trailers."""
        self._skip = 0  # data bytes and their CRLF still to pass; the CRLF is checked when 2 or fewer are left
        self._line = b""
        self._in_trailers = False
        self._trailer_bytes = 0

    def scan(self, data: bytes, start: int = 0) -> int:
        """Follow `data` from `start`; the answer is the position behind what belongs to the body.

        Raises FramingError on a malformed size line, a chunk that does not end with CRLF, or an overlong line.
        """
        position, end = start, len(data)
        self.chunks_end = start if self._in_trailers else end
        while position < end and not self.done:
            if self._skip:
                position = self._pass_data(data, position, end)
                continue
            if not self._line and not self._in_trailers:
                run = _TINY_CHUNKS.match(data, position)
                if run is not None:
                    position = run.end()
                    continue
            newline = data.find(b"\n", position)
            if newline == -1:
                self._line += data[position:]
                self._check_length(len(self._line))
                return end
            line = self._line + data[position : newline + 1]
            self._line = b""
            position = newline + 1
            self._check_length(len(line))
            self._take_line(line)
            if self._in_trailers and self.chunks_end == end:
                self.chunks_end = position
        return position

    def _pass_data(self, data: bytes, position: int, end: int) -> int:
        """Step over chunk data; the last two bytes of `_skip` are the chunk's CRLF and must be that."""
        body = self._skip - 2
        if body > 0:
            step = min(body, end - position)
            self._skip -= step
            position += step
        while position < end and 0 < self._skip <= 2:
            if data[position] != (13 if self._skip == 2 else 10):
                raise FramingError("a chunk does not end with CRLF")
            self._skip -= 1
            position += 1
        return position

    def _check_length(self, line_bytes: int) -> None:
        if not self._in_trailers and line_bytes > MAX_CHUNK_LINE_BYTES:
            raise FramingError("a chunk-size line is too long")
        if self._in_trailers and self._trailer_bytes + line_bytes > MAX_TRAILER_BYTES:
            raise FramingError("the trailers are too long")

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise FramingError("a line of the chunked body ends with a bare LF")
        if self._in_trailers:
            self._trailer_bytes += len(line)
            self.done = line == b"\r\n"
            if not self.done and (not _TRAILER.fullmatch(line) or _FRAMING_TRAILER.match(line)):
                raise FramingError("a trailer is malformed, or a field that has to stand in the head")
            return
        size = _CHUNK_LINE.fullmatch(line)
        if size is None:
            raise FramingError("a chunk size is not a hexadecimal number")
        length = int(size[1], 16)
        if length:
            self._skip = length + 2
        else:
            self._in_trailers = True


_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
# RFC 9110 §6.5.1: what frames, routes or changes a message is no trailer. The others are dropped all the same.
_FRAMING_TRAILER: Final = re.compile(
    rb"(?:transfer[-_]encoding|content[-_](?:length|encoding|type)|host|connection|trailer|te|upgrade|expect"
    rb"|authorization|x[-_]api[-_]key|api-key):",
    re.IGNORECASE,
)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
# A run of whole chunks of 1 to 15 bytes. One by one they cost 1.3 µs each, 56 ms for a piece of 256 KiB; so, 2 ms.
# Possessive throughout, so linear. What it does not match (a longer extension, a cut chunk) goes the other way.
_TINY_CHUNKS: Final = re.compile(
    rb"(?:0{0,15}+(?:%s))++"
    % b"|".join(
        rb"[%x%X](?:[ \t]{0,9}+;[^\x00-\x08\x0a-\x1f\x7f]{0,200}+)?+\r\n[\x00-\xff]{%d}\r\n" % (size, size, size)
        for size in range(1, 16)
    )
)
