"""The DashScope protocol: text-generation, multimodal-generation and speech-synthesizer (protocols.md §2.4, §2.5).

Every event carries the usage so far; with several choices each event has one choice and the output tokens of that
choice alone. A choice is finished when its finish reason is not the *string* `null`. There is no `[DONE]`, and some
models answer with one choice whatever `n` says: a stream counts as complete when all choices seen have finished, or
when the output says `finished` (wan2.6-image). Errors come as an event named `error`, or as a document with a `code`,
whatever the status.
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
    text_of,
)
from observability.scanners.usage import count_of, read_usage
from observability.wire.json_paths import Path, Paths

_MESSAGE_KEYS = ("content", "reasoning_content", "tool_calls")
_PART_KEYS = ("text", "image", "audio", "video")
_AUDIO_KEYS = ("data", "url")
_OK = 200

ENVELOPE: list[Path] = [("usage",), *ERROR_PATHS]
"""Wanted of every answer."""
_OUTPUT: list[Path] = [
    ("text",),
    ("finish_reason",),
    ("finished",),
    *(("audio", key) for key in _AUDIO_KEYS),
    ("choices", "*", "index"),
    ("choices", "*", "finish_reason"),
    *(("choices", "*", "message", key) for key in _MESSAGE_KEYS),
]


class GenerationReader(Reader):
    """All three operations: they differ in what is said: text, the parts of a message, audio."""

    __slots__ = ("_choices", "_tokens_by_choice")

    paths: ClassVar[Paths] = Paths([*ENVELOPE, *(("output", *path) for path in _OUTPUT)])

    def __init__(self, findings: Findings) -> None:
        super().__init__(findings)
        self._choices = Choices()
        self._tokens_by_choice: dict[int, tuple[int, int | None]] = {}  # output and, of them, reasoning

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        findings = self.findings
        self._read(document)
        if name == b"error" and findings.error_code is None:
            findings.error_code = "error"
        self._settle(findings.error_code is None and (self._choices.finished or self._is_over(document.get("output"))))

    def _is_over(self, output: object) -> bool:
        """Does the output of an event say that nothing follows, whatever its choices say?"""
        return isinstance(output, dict) and output.get("finished") is True

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read(document)
        output = document.get("output")
        if self.findings.images is None and isinstance(output, dict) and (images := self._images_in(output)):
            self.findings.images = images

    def _read(self, document: dict[str, Any]) -> None:
        findings = self.findings
        if findings.upstream_request_id is None:
            findings.upstream_request_id = text_of(document.get("request_id"))
        if document.get("code") or "error" in document:  # a success may carry an empty code
            findings.error_code = _code_of(document) or error_code_of(document) or findings.error_code
        if (usage := document.get("usage")) is not None:
            read_usage(findings, usage)
        output = document.get("output")
        if not isinstance(output, dict):
            return
        choices = output.get("choices")
        if isinstance(choices, list):
            self._read_choices(choices, usage)
        elif "finish_reason" in output:
            self._see(0, output)
        if self._has_output(output):
            self.output()

    def _read_choices(self, choices: list[Any], usage: object) -> None:
        index = 0
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                index = index_of(choice, position)
                self._see(index, choice)
        if len(choices) == 1 and isinstance(usage, dict):
            self._sum_output(index, usage)

    def _see(self, index: int, choice: dict[str, Any]) -> None:
        reason = text_of(choice.get("finish_reason"))  # absent, null or "null" until it is finished
        if self._choices.see(index, None if reason == "null" else reason):
            self.findings.finish_reasons = self._choices.finish_reasons()

    def _sum_output(self, index: int, usage: dict[str, Any]) -> None:
        """With several choices this usage is that of one: the output of the response is their sum."""
        by_choice = self._tokens_by_choice
        if (output := count_of(usage.get("output_tokens"))) is None:
            return
        if index in by_choice or len(by_choice) < CHOICES_MAX:
            details = usage.get("output_tokens_details")
            reasoning = count_of(details.get("reasoning_tokens")) if isinstance(details, dict) else None
            by_choice[index] = (output, reasoning)
        if len(by_choice) > 1:
            self.findings.output_tokens = sum(output for output, _ in by_choice.values())
            reasonings = [reasoning for _, reasoning in by_choice.values() if reasoning is not None]
            if reasonings:
                self.findings.reasoning_tokens = sum(reasonings)

    def _has_output(self, output: dict[str, Any]) -> bool:
        if output.get("text"):
            return True
        choices = output.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                message = choice.get("message") if isinstance(choice, dict) else None
                if isinstance(message, dict) and _message_says_something(message):
                    return True
        audio = output.get("audio")
        return isinstance(audio, dict) and any(audio.get(key) for key in _AUDIO_KEYS)

    def _images_in(self, output: dict[str, Any]) -> int:
        """Images in the messages of a whole answer, for models whose usage does not count them."""
        choices = output.get("choices")
        images = 0
        for choice in choices if isinstance(choices, list) else ():
            message = choice.get("message") if isinstance(choice, dict) else None
            content = message.get("content") if isinstance(message, dict) else None
            for part in content if isinstance(content, list) else ():
                images += isinstance(part, dict) and bool(part.get("image"))
        return images


def _code_of(document: dict[str, Any]) -> str | None:
    """SDKs take any code that is not empty for an error, and numbers have been seen: statuses, also that of success."""
    code = document.get("code")
    if type(code) is int and code != _OK:
        return str(code)
    return code_of(code) or ("error" if text_of(code) is not None else None)


def _message_says_something(message: dict[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and any(part.get(key) for key in _PART_KEYS):
                return True
    elif content:
        return True
    return bool(message.get("reasoning_content") or message.get("tool_calls"))


READERS: dict[tuple[str, str], type[Reader]] = {
    ("dashscope", "text-generation"): GenerationReader,
    ("dashscope", "multimodal-generation"): GenerationReader,
    ("dashscope", "speech-synthesizer"): GenerationReader,
}
"""By protocol and operation."""
