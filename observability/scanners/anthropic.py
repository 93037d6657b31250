"""The Anthropic protocol: messages and messages.count_tokens (protocols.md §1.1, §4.1, §4.2).

Input tokens are counted without those of the cache, which are added here. `message_start` has the usage so far,
`message_delta` the last word: its numbers are totals, and those that it leaves out stay. A stream ends with
`message_stop`.
"""

from typing import Any, ClassVar

from observability.findings import Findings
from observability.scanners.base import ERROR_PATHS, Reader, error_code_of, kind_of, text_of
from observability.scanners.usage import COUNT_MAX, count_of
from observability.wire.json_paths import Path, Paths

_DELTA_KEYS = ("text", "thinking", "partial_json")  # a signature or a citation is no output
_MESSAGE: list[Path] = [("id",), ("model",), ("usage",), ("stop_reason",)]


class MessagesReader(Reader):
    """`messages`."""

    __slots__ = ("_uncached",)

    paths: ClassVar[Paths] = Paths(
        [
            *ERROR_PATHS,
            ("type",),
            *_MESSAGE,
            *(("message", *path) for path in _MESSAGE),  # of message_start
            ("delta", "stop_reason"),
            *(("delta", key) for key in _DELTA_KEYS),
        ],
        counted=[("content",)],
    )

    def __init__(self, findings: Findings) -> None:
        super().__init__(findings)
        self._uncached: int | None = None

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        kind = kind_of(name, document)
        delta = document.get("delta")
        if kind == "content_block_delta":
            if isinstance(delta, dict) and any(delta.get(key) for key in _DELTA_KEYS):
                self.output()
        elif kind == "message_start":
            message = document.get("message")
            if isinstance(message, dict):
                self._read_message(message)
        elif kind == "message_delta":
            if isinstance(delta, dict):
                self._read_stop(delta)
            self._read_usage(document.get("usage"))
        elif kind == "message_stop":
            self._settle(self.findings.error_code is None)
        elif kind != "ping":
            self._read_error(document)
            if kind == "error" and self.findings.error_code is None:
                self.findings.error_code = "error"

    def body(self, document: dict[str, Any]) -> None:
        """A whole message."""
        self._read_error(document)
        self._read_message(document)
        if document.get("content"):
            self.output()

    def _read_error(self, document: dict[str, Any]) -> None:
        if (code := error_code_of(document)) is not None:
            self.findings.error_code = code
            self.findings.upstream_request_id = text_of(document.get("request_id"))

    def _read_message(self, message: dict[str, Any]) -> None:
        findings = self.findings
        findings.response_id = text_of(message.get("id"))
        findings.response_model = text_of(message.get("model"))
        self._read_stop(message)
        self._read_usage(message.get("usage"))

    def _read_stop(self, said: dict[str, Any]) -> None:
        if (reason := text_of(said.get("stop_reason"))) is not None:
            self.findings.finish_reasons = [reason]

    def _read_usage(self, usage: object) -> None:
        if not isinstance(usage, dict) or not usage:
            return
        findings = self.findings
        findings.usage_seen = True
        if (tokens := count_of(usage.get("input_tokens"))) is not None:
            self._uncached = tokens
        if (tokens := count_of(usage.get("cache_read_input_tokens"))) is not None:
            findings.cache_read_tokens = tokens
        if (tokens := _created(usage)) is not None:
            findings.cache_creation_tokens = tokens
        if self._uncached is not None:
            cached = (findings.cache_creation_tokens or 0) + (findings.cache_read_tokens or 0)
            findings.input_tokens = min(self._uncached + cached, COUNT_MAX)
            if cached:
                findings.raw_input_tokens = self._uncached
        if (tokens := count_of(usage.get("output_tokens"))) is not None:
            findings.output_tokens = tokens
        details = usage.get("output_tokens_details")
        if isinstance(details, dict) and (tokens := count_of(details.get("thinking_tokens"))) is not None:
            findings.reasoning_tokens = tokens


class CountTokensReader(MessagesReader):
    """`messages.count_tokens`: the number is the answer, not a usage, since no model read the tokens."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*ERROR_PATHS, ("type",), ("input_tokens",)])

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_error(document)
        if "input_tokens" in document:
            self.output()


def _created(usage: dict[str, Any]) -> int | None:
    """Tokens written to the cache: their number, else the sum over how long they are kept."""
    if (tokens := count_of(usage.get("cache_creation_input_tokens"))) is not None:
        return tokens
    parts = usage.get("cache_creation")
    counts = [count_of(part) for part in parts.values()] if isinstance(parts, dict) else []
    known = [count for count in counts if count is not None]
    return min(sum(known), COUNT_MAX) if known else None


READERS: dict[tuple[str, str], type[Reader]] = {
    ("anthropic", "messages"): MessagesReader,
    ("anthropic", "messages.count_tokens"): CountTokensReader,
}
"""By protocol and operation."""
