"""The two changes that `include_usage` makes to a stream: asking for usage in the client's place, and withholding the
chunk that answers, so that the client gets the stream it would have got.

Pure: bytes in, bytes out. Everything that is not changed stays as it was, byte for byte.
"""

from typing import Final

import orjson

ASK: Final = b'"stream_options":{"include_usage":true},'
MAX_HELD_EVENT_BYTES: Final = 16384
"""A usage chunk is under 1 KiB; an event that grows beyond this is none, and passes."""


def ask_for_usage(body: bytes) -> bytes | None:
    """The body of a streamed request with `stream_options.include_usage` set, or None where it is to stay as it is.

    It stays where the client asks already, does not stream, or where the document is not one that both we and the
    upstream read alike (not an object, or with `stream_options` of an unexpected type: the upstream's to judge).
    """
    if b'"stream' not in body:  # also escaped spellings of the key are left alone: nobody writes them
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or document.get("stream") is not True:
        return None
    options = document.get("stream_options")
    if options is None and "stream_options" not in document:
        brace = body.index(b"{") + 1
        return b"%s%s%s" % (body[:brace], ASK, body[brace:])
    if options is not None and not isinstance(options, dict):
        return None
    if options is not None and options.get("include_usage") is True:
        return None
    # Somebody wrote stream_options without include_usage (rare): the document is written anew, values unchanged.
    document["stream_options"] = {**(options or {}), "include_usage": True}
    return orjson.dumps(document)


class UsageChunkFilter:
    """Takes the usage chunk (`"choices": []` with a usage) out of a stream of server-sent events.

    `feed` answers what may go on to the client. Bytes wait here only while an event is not whole, MAX_HELD_EVENT_BYTES
    at most.
    """

    __slots__ = ("_held", "_passing", "withheld")

    def __init__(self) -> None:
        self._held = b""
        self._passing = False  # in an event that grew too large to be a usage chunk
        self.withheld = 0
        """Chunks taken out."""

    def feed(self, data: bytes) -> bytes:
        """The bytes that may go on."""
        if self._held:
            data = self._held + data
            self._held = b""
        out = []
        position = 0
        while position < len(data):
            end = _event_end(data, position)
            if end == -1:
                rest = data[position:]
                if self._passing or len(rest) > MAX_HELD_EVENT_BYTES:
                    # keep what may be the first half of the blank line, or its end would be missed
                    keep = min(3, len(rest) - 1)
                    self._passing = True
                    out.append(rest[:-keep] if keep else rest)
                    self._held = rest[-keep:] if keep else b""
                else:
                    self._held = rest
                break
            event = data[position:end]
            if self._passing or not _is_usage_chunk(event):
                out.append(event)
            else:
                self.withheld += 1
            self._passing = False
            position = end
        return out[0] if len(out) == 1 else b"".join(out)

    def end(self) -> bytes:
        """What is still held when the stream is over."""
        held, self._held = self._held, b""
        return held


def _event_end(data: bytes, start: int) -> int:
    """Behind the blank line that ends the event at `start`; -1 where it has not come."""
    ends = [at + len(blank) for blank in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := data.find(blank, start)) != -1]
    return min(ends, default=-1)


def _is_usage_chunk(event: bytes) -> bool:
    if b'"usage"' not in event or b"data:" not in event:
        return False
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        document = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("choices") == [] and isinstance(document.get("usage"), dict)
