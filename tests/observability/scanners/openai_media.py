"""Images edited and varied, speech and transcriptions of the OpenAI protocol."""

from tests.observability.scanners.openai_bodies import (
    COMPLETED,
    IMAGE_TOKENS,
    IMAGE_USAGE,
    MADE,
    PARTIAL,
    PICTURE,
    SQUARE,
)
from tests.observability.scanners.responses import Case, events, plain, stream, typed_events

TOLD = {"first_output": True, "output_events": 1}
EDIT_PARTIAL = {**PARTIAL, "type": "image_edit.partial_image"}
EDITED = {**COMPLETED, "type": "image_edit.completed"}

EDITS = [
    *(
        case
        for operation in ("images.edits", "images.variations")
        for case in (
            plain("images", operation, {"created": 1, "data": [{"url": "u"}, {"b64_json": "v"}]}, **MADE, images=2),
            plain(
                "large images",
                operation,
                {"data": [{"b64_json": PICTURE}] * 2, "usage": IMAGE_USAGE, "size": "1024x1024"},
                **MADE,
                **SQUARE,
                **IMAGE_TOKENS,
                images=2,
            ),
        )
    ),
    stream(
        "openai",
        "images.edits",
        "stream",
        typed_events(EDIT_PARTIAL, EDIT_PARTIAL, EDITED),
        **{**MADE, **SQUARE, **IMAGE_TOKENS, "output_events": 3},
        images=1,
        events=3,
    ),
    stream(
        "openai",
        "images.edits",
        "stream, cut",
        typed_events(EDIT_PARTIAL),
        **{**MADE, **SQUARE, "complete": False},
        events=1,
    ),
]

SPEECH_USAGE = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
SPOKEN = {"input_tokens": 14, "output_tokens": 101, "usage_seen": True, "usage_final": True, "complete": True}
AUDIO = {"type": "speech.audio.delta", "audio": "QUJD"}
AUDIO_DONE = {"type": "speech.audio.done", "usage": SPEECH_USAGE}
MP3 = b"ID3\x04\0" + bytes(range(256))


def speech(name: str, body: bytes, **facts: object) -> Case:
    """A stream of speech."""
    return stream("openai", "audio.speech", name, body, **facts)


SPEECH = [
    Case("bytes", "openai", "audio.speech", MP3, {"first_output": True, "complete": True}, "audio/mpeg"),
    Case("bytes", "openai", "audio.speech", MP3, {"first_output": True, "complete": True}, "application/octet-stream"),
    Case("bytes without a type", "openai", "audio.speech", MP3, {"first_output": True, "complete": True}, ""),
    speech("stream", events(AUDIO, AUDIO, AUDIO_DONE), **SPOKEN, first_output=True, output_events=2, events=3),
    speech("no usage", events(AUDIO, {"type": "speech.audio.done"}), **TOLD, complete=True, events=2),
    speech("cut", events(AUDIO, AUDIO), first_output=True, output_events=2, events=2),
    speech("large", typed_events({**AUDIO, "audio": "QUJD" * 30_000}, AUDIO_DONE), **SPOKEN, **TOLD, events=2),
    speech("error", events(AUDIO, {"type": "error", "code": "x"}), **TOLD, error_code="x", complete=True, events=2),
    plain("in JSON", "audio.speech", {"audio": "QUJD" * 30_000, "usage": SPEECH_USAGE}, **SPOKEN, **TOLD),
]

TEXT_USAGE = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 59,
}
HEARD = {"input_tokens": 14, "output_tokens": 45, "audio_tokens": 14, "usage_seen": True, "usage_final": True}
SECONDS = {"type": "duration", "seconds": 9}
TIMED = {"seconds": 9.0, "usage_seen": True, "usage_final": True}
SAID = {"type": "transcript.text.delta", "delta": "hi"}
SAID_DONE = {"type": "transcript.text.done", "text": "hi", "usage": TEXT_USAGE}
SRT = b"1\n00:00:00,000 --> 00:00:02,000\nhi\n\n"


def chunk(text: str, reason: str | None = None, **more: object) -> dict[str, object]:
    """One event of vLLM's."""
    choices = [{"delta": {"content": text}, "finish_reason": reason}]
    return {"id": "trsc-1", "object": "transcription.chunk", "model": "whisper", "choices": choices, **more}


def heard(name: str, body: bytes, **facts: object) -> Case:
    """A stream of a transcription."""
    return stream("openai", "audio.transcriptions", name, body, **facts)


TRANSCRIPTIONS = [
    *(
        case
        for operation in ("audio.transcriptions", "audio.translations")
        for case in (
            plain("tokens", operation, {"text": "hi", "usage": TEXT_USAGE}, **HEARD, **TOLD, complete=True),
            plain("seconds", operation, {"text": "hi", "usage": SECONDS}, **TIMED, **TOLD, complete=True),
            plain("silence", operation, {"text": "", "usage": SECONDS}, **TIMED, complete=True),
            plain("no usage", operation, {"text": "hi"}, **TOLD, complete=True),
            plain(
                "verbose",
                operation,
                {"task": "transcribe", "duration": 8.47, "text": "hi", "segments": [{"text": "x" * 70_000}]},
                **TOLD,
                seconds=8.47,
                complete=True,
            ),
            plain(
                "verbose with usage",
                operation,
                {"duration": 8.47, "text": "x" * 70_000, "usage": SECONDS},
                **TIMED,
                **TOLD,
                complete=True,
            ),
            *(
                Case(kind, "openai", operation, SRT, {"first_output": True, "complete": True}, kind)
                for kind in ("text/plain; charset=utf-8", "application/x-subrip", "text/vtt")
            ),
        )
    ),
    heard(
        "stream",
        events(SAID, {**SAID, "delta": ""}, SAID, SAID_DONE),
        **HEARD,
        first_output=True,
        output_events=2,
        complete=True,
        events=4,
    ),
    heard("stream of one event", events(SAID_DONE), **HEARD, **TOLD, complete=True, events=1),
    heard(
        "stream of segments",
        events({"type": "transcript.text.segment", "text": "hi", "id": "seg_1"}, SAID_DONE),
        **HEARD,
        **TOLD,
        response_id="seg_1",
        complete=True,
        events=2,
    ),
    heard("cut", events(SAID, SAID), first_output=True, output_events=2, events=2),
    heard("error", events(SAID, {"error": {"code": "x"}}), **TOLD, error_code="x", complete=True, events=2),
    heard(
        "vLLM's chunks",
        events(chunk("hi"), chunk("", "stop"), {**chunk(""), "choices": [], "usage": {"prompt_tokens": 3}}, done=True),
        **TOLD,
        response_id="trsc-1",
        response_model="whisper",
        finish_reasons=["stop"],
        input_tokens=3,
        usage_seen=True,
        usage_final=True,
        complete=True,
        events=4,
    ),
    heard(
        "vLLM's chunks, cut",
        events(chunk("hi"), chunk("x" * 70_000)),
        first_output=True,
        output_events=2,
        response_id="trsc-1",
        response_model="whisper",
        events=2,
    ),
]

MEDIA = [*EDITS, *SPEECH, *TRANSCRIPTIONS]
