"""The OpenAI protocol: models, files, uploads, batches and fine-tuning jobs (protocols.md §1.8).

An answer is a resource, a list of them, or the content of a file, which says nothing. A job that failed is told of by
an answer that did not: its `error` is the job's own. A batch has a usage once it has ended.
"""

from typing import Any, ClassVar

from observability.scanners.base import Reader, error_code_of, text_of
from observability.scanners.openai import ENVELOPE
from observability.scanners.usage import read_usage
from observability.wire.json_paths import Paths

_ENDED = frozenset(("completed", "failed", "expired", "cancelled"))


class ResourceReader(Reader):
    """All five. `response_id` is the resource's; a model names itself."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*ENVELOPE, ("status",), ("custom_id",)])

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """An event, of a job's log."""
        self.body(document)
        if name == b"error" and self.findings.error_code is None:
            self.findings.error_code = "error"

    def body(self, document: dict[str, Any]) -> None:
        """A resource, or a list."""
        findings = self.findings
        kind = text_of(document.get("object"))
        # with a custom_id: a line of the file that a batch left
        says_of_itself = (kind is None or kind == "error") and "custom_id" not in document
        if says_of_itself and (code := error_code_of(document)) is not None:
            findings.error_code = code
            findings.upstream_request_id = text_of(document.get("request_id"))
            return
        findings.response_id = text_of(document.get("id"))
        findings.response_model = findings.response_id if kind == "model" else text_of(document.get("model"))
        if kind == "batch" and text_of(document.get("status")) in _ENDED:
            read_usage(findings, document.get("usage"))
        self.output()

    def end(self) -> None:
        """The stream ended cleanly; nothing marks its end."""
        self._settle(True)


READERS: dict[tuple[str, str], type[Reader]] = {
    ("openai", operation): ResourceReader for operation in ("models", "files", "uploads", "batches", "fine_tuning")
}
"""By protocol and operation."""
