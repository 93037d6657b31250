"""The OpenAI protocol: responses (protocols.md §1.1, §4.1).

Events have types. `response.created` names the response; `response.completed`, `.incomplete` and `.failed` end it and
carry the whole of it once more, its usage with it: what came without deltas is output only then. There is no `[DONE]`,
though some servers write one.
"""

from typing import Any, ClassVar

from observability.scanners.base import Reader, text_of
from observability.scanners.openai import ENVELOPE, TypedReader
from observability.wire.json_paths import Path, Paths

_RESPONSE: list[Path] = [
    ("id",),
    ("model",),
    ("usage",),
    ("status",),
    ("error",),
    ("error", "code"),
    ("error", "message"),
    ("incomplete_details", "reason"),
]
_ENDED = frozenset(("completed", "incomplete", "failed", "cancelled"))


class ResponsesReader(TypedReader):
    """`responses`. The finish reason is the status, of an incomplete response what it lacks (`max_output_tokens`)."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths(
        [*ENVELOPE, *_RESPONSE, ("delta",), ("partial_image_b64",), *(("response", *path) for path in _RESPONSE)],
        counted=[("output",), ("response", "output")],
    )

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        if document.get("delta") or document.get("partial_image_b64"):  # of text, reasoning, arguments, audio, …
            self.output()
        else:
            super().event(name, document)

    def _read_event(self, kind: str, document: dict[str, Any]) -> None:
        response = document.get("response")
        if isinstance(response, dict):
            self._read_envelope(response)
        status = kind.removeprefix("response.")
        if status in _ENDED:
            self._read_status(status, response)
            if not self.findings.first_output and isinstance(response, dict) and response.get("output"):
                self.output()
            self._settle(True)

    def body(self, document: dict[str, Any]) -> None:
        """A whole response."""
        self._read_envelope(document)
        self._read_status(text_of(document.get("status")), document)
        if document.get("output"):
            self.output()

    def _read_status(self, status: str | None, response: object) -> None:
        if status not in _ENDED:
            return
        details = response.get("incomplete_details") if isinstance(response, dict) else None
        reason = text_of(details.get("reason")) if isinstance(details, dict) else None
        self.findings.finish_reasons = [reason or status]
        if status == "failed" and self.findings.error_code is None:
            self.findings.error_code = status


READERS: dict[tuple[str, str], type[Reader]] = {("openai", "responses"): ResponsesReader}
"""By protocol and operation."""
