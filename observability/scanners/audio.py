"""The OpenAI protocol: speech, transcriptions and translations (protocols.md §1.6, §4.1).

Speech is bytes, and a transcription may be text or subtitles: those say nothing that we know and are whole when they
end. What is read is JSON and events.
"""

from typing import Any, ClassVar

from observability.findings import Findings
from observability.scanners.base import Reader
from observability.scanners.openai import ENVELOPE, ChatReader, TypedReader
from observability.scanners.usage import seconds_of
from observability.wire.json_paths import Paths


class SpeechReader(TypedReader):
    """`audio.speech`: `speech.audio.delta` with base64, `speech.audio.done` with the usage; JSON for errors alone."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*ENVELOPE, ("audio",)])
    untyped_is_json: ClassVar[bool] = False

    def _read_event(self, kind: str, document: dict[str, Any]) -> None:
        if document.get("audio"):
            self.output()
        if kind == "speech.audio.done":
            self._settle(self.findings.error_code is None)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer: some servers put the audio into JSON."""
        self._read_envelope(document)
        if document.get("audio"):
            self.output()


class TranscriptionReader(TypedReader):
    """`audio.transcriptions` and `.translations`: `transcript.text.delta` and `.done`, or chunks as of a chat (vLLM).

    The usage counts tokens, or seconds where the model is billed by them. Without a usage the `duration` of a verbose
    answer tells the seconds.
    """

    __slots__ = ("_chunks",)

    paths: ClassVar[Paths] = Paths([*ChatReader.paths.paths, ("text",), ("delta",), ("duration",)])

    def __init__(self, findings: Findings) -> None:
        super().__init__(findings)
        self._chunks = ChatReader(findings)

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        if "choices" in document:
            self._chunks.event(name, document)
        else:
            super().event(name, document)

    def _read_event(self, kind: str, document: dict[str, Any]) -> None:
        done = kind == "transcript.text.done"
        # the last event repeats the text: it is output where no other was
        if document.get("delta") or (document.get("text") and not (done and self.findings.first_output)):
            self.output()
        if done:
            self._settle(self.findings.error_code is None)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        if self.findings.seconds is None:
            self.findings.seconds = seconds_of(document.get("duration"))
        if document.get("text"):
            self.output()


READERS: dict[tuple[str, str], type[Reader]] = {
    ("openai", "audio.speech"): SpeechReader,
    ("openai", "audio.transcriptions"): TranscriptionReader,
    ("openai", "audio.translations"): TranscriptionReader,
}
"""By protocol and operation."""
