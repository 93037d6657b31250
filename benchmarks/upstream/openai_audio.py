"""The OpenAI protocol's sound: speech as bytes or as events, transcriptions and translations of forms.

The length of a recording follows from its size, at 32,000 bytes a second. ``whisper`` models are billed by the second,
all others by the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import JSON, RESULT_BYTES, SSE, Asked, Event, Reply, Text, text_for, tokens_of
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import MARK, Fill, framed, parts_of
from benchmarks.upstream.ledger import Usage

BYTES_PER_SECOND = 32_000
BYTES_PER_TOKEN = 1_000  # of speech
PIECE_BYTES = 1024  # of speech in an event, unless the script says how many events there are
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav"}


def speech(asked: Asked) -> Reply:
    """``/audio/speech``; ``stream_format`` sse says the usage, the bytes alone do not."""
    size = asked.script.answer_bytes if asked.script.answer_bytes >= 0 else RESULT_BYTES
    if asked.document.get("stream_format") == "sse":
        failed = broken("openai", asked.script, asked.upload.digest)
        return Reply(SSE, asked.name, events=_spoken(asked, size), error_event=failed)
    kind = TYPES.get(str(asked.document.get("response_format") or "mp3"), "application/octet-stream")
    return Reply(kind, asked.name, [Fill("wav", 0, size)])


def _spoken(asked: Asked, size: int) -> Iterator[Event]:
    count = asked.script.events or max(1, size // PIECE_BYTES)
    groups = size // 3  # whole groups of base64, so that each piece stands for itself
    for n in range(count):
        start, end = groups * n // count * 4, groups * (n + 1) // count * 4
        body = {"type": "speech.audio.delta", "audio": MARK}
        yield Event(framed(b"data: ", parts_of(body, Fill("sound", start, end - start)), b"\n\n"), output=True)
    done: dict[str, Any] = {"type": "speech.audio.done"}
    usage = None
    if asked.script.usage != "absent":
        usage = Usage(tokens_of(len(str(asked.document.get("input", "")).encode())), size // BYTES_PER_TOKEN + 1)
        done["usage"] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        done["usage"]["total_tokens"] = sum(done["usage"].values())
    yield Event(framed(b"data: ", parts_of(done), b"\n\n"), usage=usage)


def transcriptions(asked: Asked) -> Reply:
    """``/audio/transcriptions``."""
    return _heard(asked, with_usage=asked.script.usage != "absent")


def translations(asked: Asked) -> Reply:
    """``/audio/translations``: there is no usage in them."""
    return _heard(asked, with_usage=False)


def _heard(asked: Asked, *, with_usage: bool) -> Reply:
    seconds = _seconds(asked)
    text = text_for(f"a recording of {seconds} seconds", asked.script)
    by_the_second = asked.model.startswith("whisper")
    usage = _usage(asked, text, seconds, by_the_second=by_the_second) if with_usage else Usage()
    if asked.streams and not by_the_second:  # whisper ignores it
        failed = broken("openai", asked.script, asked.upload.digest)
        return Reply(SSE, asked.name, events=_told(asked, text, usage), error_event=failed)
    match str(asked.document.get("response_format") or "json"):
        case "text":
            return Reply("text/plain; charset=utf-8", asked.name, [*_plain(text), b"\n"])
        case "srt" | "vtt" as kind:
            head = b"WEBVTT\n\n00:00.000 --> 00:01.000\n" if kind == "vtt" else b"1\n00:00:00,000 --> 00:00:01,000\n"
            return Reply(f"text/{kind}", asked.name, [head, *_plain(text), b"\n\n"])
        case "verbose_json":
            usage.seconds = float(seconds)  # the duration tells
            task = "translate" if asked.path.endswith("translations") else "transcribe"
            segment = {"id": 0, "seek": 0, "start": 0.0, "end": float(seconds), "text": MARK, "tokens": [1],
                       "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0,
                       "no_speech_prob": 0.0}  # fmt: skip
            document = {"task": task, "language": "english", "duration": float(seconds), "text": MARK}
            document |= {"segments": [segment], **_object(usage, with_usage=with_usage)}
            whole = text.fills()[0] if text.fills() else None
            if whole is None:
                segment["text"] = document["text"] = text.value
            return Reply(JSON, asked.name, parts_of(document, *([whole, whole] if whole else [])), usage=usage)
        case _:
            document = {"text": text.value, **_object(usage, with_usage=with_usage)}
            return Reply(JSON, asked.name, parts_of(document, *text.fills()), usage=usage)


def _seconds(asked: Asked) -> int:
    """Of the recording, rounded up; a form of many megabytes is nearly all recording."""
    return -(-max(asked.upload.file_bytes, 1) // BYTES_PER_SECOND)


def _usage(asked: Asked, text: Text, seconds: int, *, by_the_second: bool) -> Usage:
    if by_the_second:
        return Usage(seconds=float(seconds))
    prompt = tokens_of(len(str(asked.document.get("prompt", "")).encode()))
    return Usage(prompt + 10 * seconds, tokens_of(text.size), audio_tokens=10 * seconds)


def _object(usage: Usage, *, with_usage: bool) -> dict[str, Any]:
    """The usage object, if there is one."""
    if not with_usage:
        return {}
    if usage.input_tokens is None or usage.output_tokens is None:
        return {"usage": {"type": "duration", "seconds": int(usage.seconds or 0)}}
    audio = usage.audio_tokens or 0
    details = {"text_tokens": usage.input_tokens - audio, "audio_tokens": audio}
    total = usage.input_tokens + usage.output_tokens
    return {"usage": {"type": "tokens", "input_tokens": usage.input_tokens, "input_token_details": details,
                      "output_tokens": usage.output_tokens, "total_tokens": total}}  # fmt: skip


def _plain(text: Text) -> list[bytes | Fill]:
    return [*text.fills()] or [text.words.encode()]


def _told(asked: Asked, text: Text, usage: Usage) -> Iterator[Event]:
    for piece, fills, _ in text.deltas(asked.script.events):
        parts = parts_of({"type": "transcript.text.delta", "delta": piece}, *fills)
        yield Event(framed(b"data: ", parts, b"\n\n"), output=True)
    with_usage = usage.input_tokens is not None
    done = {"type": "transcript.text.done", "text": text.value, **_object(usage, with_usage=with_usage)}
    yield Event(framed(b"data: ", parts_of(done, *text.fills()), b"\n\n"), usage=usage if with_usage else None)
