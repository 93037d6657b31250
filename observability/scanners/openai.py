"""The OpenAI protocol: chat and text completions, embeddings, images (protocols.md §1.1, §1.3, §4.1, §4.2).

Streams differ between servers: usage comes in an extra chunk without choices, in the finish chunk, in every chunk
(the last is right) or never; `[DONE]` may be missing. A stream is complete with `[DONE]` or once every choice seen
has its finish reason, and as many were seen as the request asked for, where that is known; its usage is final if the
stream is complete.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from observability.findings import Findings
from observability.scanners.base import CHOICES_MAX, Choices, Reader, error_code_of, index_of, text_of
from observability.scanners.usage import read_usage, size_of
from observability.wire.json_paths import Path, Paths

# content first: it is what most events carry. `reasoning` is vLLM's and OpenRouter's name of reasoning_content.
_OUTPUT_KEYS = ("content", "reasoning_content", "tool_calls", "reasoning", "refusal", "function_call", "audio")

_ENVELOPE: list[Path] = [
    ("id",),
    ("model",),
    ("usage",),
    ("object",),
    ("type",),
    ("error",),
    ("error", "code"),
    ("error", "type"),
    ("error", "message"),
    ("code",),
    ("message",),
    ("request_id",),
]
_CHOICE: list[Path] = [("choices", "*", "index"), ("choices", "*", "finish_reason")]


class _EnvelopeReader(Reader):
    """What all operations share: names, usage and errors."""

    __slots__ = ("_named",)

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._named = False

    def _read_envelope(self, document: dict[str, Any]) -> None:
        findings = self.findings
        if not self._named:  # Azure's first chunk has both empty
            findings.response_id = findings.response_id or text_of(document.get("id"))
            findings.response_model = findings.response_model or text_of(document.get("model"))
            self._named = findings.response_id is not None and findings.response_model is not None
        if (usage := document.get("usage")) is not None:
            read_usage(findings, usage)
        if "error" in document or "choices" not in document:
            self._read_error(document)

    def _read_error(self, document: dict[str, Any]) -> None:
        if (code := error_code_of(document)) is not None:
            self.findings.error_code = code
            self.findings.upstream_request_id = text_of(document.get("request_id"))

    def _settle(self, complete: bool) -> None:
        findings = self.findings
        findings.complete = complete
        findings.usage_final = complete and findings.usage_seen and findings.error_code is None

    def done(self) -> None:
        """`[DONE]`."""
        self._settle(True)


class _ChoicesReader(_EnvelopeReader):
    """Operations that answer with choices."""

    __slots__ = ("_choices",)

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._named = False
        self._choices = Choices()

    def expect(self, choices: int) -> None:
        """`n` of the request. A server that ignores it and leaves out `[DONE]` looks as if it broke off."""
        self._choices.expected = min(choices, CHOICES_MAX)

    def _has_output(self, choice: dict[str, Any]) -> bool:
        raise NotImplementedError

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One chunk."""
        self._read_envelope(document)
        self._read_choices(document.get("choices"))
        if name == b"error" and self.findings.error_code is None:
            self.findings.error_code = "error"
        self._settle(self._choices.finished and self.findings.error_code is None)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        choices = document.get("choices")
        if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict):  # as nearly always
            reason = text_of(choices[0].get("finish_reason"))
            if reason is not None:
                self.findings.finish_reasons = [reason]
            if self._has_output(choices[0]):
                self.output()
        else:
            self._read_choices(choices)

    def _read_choices(self, choices: object) -> None:
        if not isinstance(choices, list):
            return
        has_output = changed = False
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            reason = text_of(choice.get("finish_reason"))
            changed |= self._choices.see(index_of(choice, position), reason)
            has_output = has_output or self._has_output(choice)
        if changed:
            self.findings.finish_reasons = self._choices.finish_reasons()
        if has_output:
            self.output()


class ChatReader(_ChoicesReader):
    """`chat.completions`."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths(
        [
            *_ENVELOPE,
            *_CHOICE,
            *(("choices", "*", place, key) for place in ("delta", "message") for key in _OUTPUT_KEYS),
        ]
    )

    def _has_output(self, choice: dict[str, Any]) -> bool:
        said = choice.get("delta") or choice.get("message")
        if isinstance(said, dict):
            for key in _OUTPUT_KEYS:
                if said.get(key):
                    return True
        return False


class CompletionsReader(_ChoicesReader):
    """`completions`."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*_ENVELOPE, *_CHOICE, ("choices", "*", "text")])

    def _has_output(self, choice: dict[str, Any]) -> bool:
        return bool(choice.get("text"))


class EmbeddingsReader(_EnvelopeReader):
    """`embeddings`: never streamed. `documents` is the number of vectors."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths(_ENVELOPE, counted=[("data",)])

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """The protocol has none; what a server sends anyway is read like a body."""
        self.body(document)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        data = document.get("data")
        if isinstance(data, list) and data:
            self.findings.documents = len(data)
            self.output()


class ImagesReader(_EnvelopeReader):
    """`images.generations`: JSON, or the events `image_generation.partial_image` and `.completed`.

    One `.completed` comes for each image. The stream does not say how many images there will be: it counts as complete
    after a `.completed`, and no longer when a further partial image comes.
    """

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*_ENVELOPE, ("size",)], counted=[("data",)])

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        findings = self.findings
        self._read_envelope(document)
        kind = document.get("type")
        if not isinstance(kind, str):
            kind = name.decode("utf-8", "replace")
        if kind == "error" and findings.error_code is None:
            findings.error_code = text_of(document.get("code")) or "error"
        completed = kind.endswith(".completed")
        if completed or kind.endswith(".partial_image"):
            self._read_size(document)
            self.output()
            if completed:
                findings.images = (findings.images or 0) + 1
            self._settle(completed and findings.error_code is None)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        data = document.get("data")
        if isinstance(data, list) and data:
            self.findings.images = len(data)
            self._read_size(document)
            self.output()

    def _read_size(self, document: dict[str, Any]) -> None:
        if (size := size_of(document.get("size"))) is not None:
            self.findings.image_width, self.findings.image_height = size


READERS: dict[str, Callable[[Findings], Reader]] = {
    "chat.completions": ChatReader,
    "completions": CompletionsReader,
    "embeddings": EmbeddingsReader,
    "images.generations": ImagesReader,
}
"""By operation."""
