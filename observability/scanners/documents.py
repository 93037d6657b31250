"""Operations that answer with something for each of many texts: embeddings, rerank and score (protocols.md §1.7).

None of them streams; events that come all the same are read like a body. Nothing is generated: where the usage has only
a total, that is the input.
"""

from typing import Any, ClassVar

from observability.scanners import dashscope
from observability.scanners.base import Reader
from observability.scanners.openai import ENVELOPE, EnvelopeReader
from observability.scanners.tasks import TASK, TaskReader
from observability.scanners.usage import read_total
from observability.wire.json_paths import Paths


class DocumentsReader(EnvelopeReader):
    """As OpenAI and vLLM write it: `data` with a vector or a score each, or `results`, best first."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths(ENVELOPE, counted=[("data",), ("results",)])

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """An event, though there should be none."""
        self.body(document)
        if name == b"error" and self.findings.error_code is None:
            self.findings.error_code = "error"

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        read_total(self.findings, document.get("usage"))
        answers = document.get("data") or document.get("results")
        if isinstance(answers, list) and answers:
            self.findings.documents = len(answers)
            self.output()

    def end(self) -> None:
        """The stream ended cleanly."""
        self._settle(True)


class NativeDocumentsReader(TaskReader):
    """As DashScope writes it: `output.embeddings` or `output.results`; a file of texts is a task."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths(
        [*dashscope.ENVELOPE, *(path for path in TASK if "results" not in path)],
        counted=[("output", "embeddings"), ("output", "results")],
    )

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """An event, though there should be none."""
        super().event(name, document)
        self._count(document)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        super().body(document)
        self._count(document)

    def end(self) -> None:
        """The stream ended cleanly."""
        self._settle(True)

    def _count(self, document: dict[str, Any]) -> None:
        findings = self.findings
        findings.images = None  # those of the usage were looked at, not made
        output = document.get("output")
        if isinstance(output, dict):
            answers = output.get("embeddings") or output.get("results")
            if isinstance(answers, list) and answers:
                findings.documents = len(answers)
                self.output()


READERS: dict[tuple[str, str], type[Reader]] = {
    ("openai", "embeddings"): DocumentsReader,
    ("vllm", "rerank"): DocumentsReader,
    ("vllm", "score"): DocumentsReader,
    ("dashscope", "reranks"): DocumentsReader,
    ("dashscope", "text-embedding"): NativeDocumentsReader,
    ("dashscope", "multimodal-embedding"): NativeDocumentsReader,
    ("dashscope", "text-rerank"): NativeDocumentsReader,
}
"""By protocol and operation."""
