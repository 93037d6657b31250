"""The OpenAI protocol: chat and text completions, and what its other operations share (protocols.md §1.1, §4.1, §4.2).

Streams differ between servers: usage comes in an extra chunk without choices, in the finish chunk, in every chunk
(the last is right) or never; `[DONE]` may be missing. A stream is complete with `[DONE]` or once every choice seen
has its finish reason, and as many were seen as the request asked for, where that is known; its usage is final if the
stream is complete.
"""

from typing import Any, ClassVar

from observability.findings import Findings
from observability.scanners.base import (
    CHOICES_MAX,
    ERROR_PATHS,
    Choices,
    Reader,
    code_of,
    error_code_of,
    index_of,
    kind_of,
    text_of,
)
from observability.scanners.usage import read_usage
from observability.wire.json_paths import Path, Paths

# content first: it is what most events carry. `reasoning` is vLLM's and OpenRouter's name of reasoning_content.
_OUTPUT_KEYS = ("content", "reasoning_content", "tool_calls", "reasoning", "refusal", "function_call", "audio")

ENVELOPE: list[Path] = [("id",), ("model",), ("usage",), ("type",), *ERROR_PATHS]
"""Wanted of every answer."""
_CHOICE: list[Path] = [("choices", "*", "index"), ("choices", "*", "finish_reason")]


class EnvelopeReader(Reader):
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


class TypedReader(EnvelopeReader):
    """Operations whose events have a type."""

    __slots__ = ()

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        self._read_envelope(document)
        kind = kind_of(name, document)
        if kind == "error" and self.findings.error_code is None:
            self.findings.error_code = code_of(document.get("code")) or "error"
        self._read_event(kind, document)

    def _read_event(self, kind: str, document: dict[str, Any]) -> None:
        raise NotImplementedError


class _ChoicesReader(EnvelopeReader):
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
            *ENVELOPE,
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

    paths: ClassVar[Paths] = Paths([*ENVELOPE, *_CHOICE, ("choices", "*", "text")])

    def _has_output(self, choice: dict[str, Any]) -> bool:
        return bool(choice.get("text"))


READERS: dict[tuple[str, str], type[Reader]] = {
    ("openai", "chat.completions"): ChatReader,
    ("openai", "completions"): CompletionsReader,
}
"""By protocol and operation."""
