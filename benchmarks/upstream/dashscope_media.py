"""DashScope's own protocol: images that are made at once, and speech over HTTP, in JSON and in its kind of SSE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import CREATED, JSON, RESULT_BYTES, Asked, Event, Reply, request_id, tokens_of
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import MARK, Fill, Parts, framed, parts_of
from benchmarks.upstream.ledger import Usage

SSE = "text/event-stream;charset=UTF-8"
PIECE_BYTES = 1024  # of speech in an event, unless the script says how many events there are
PIXELS = {"1K": (1024, 1024), "2K": (2048, 2048), "4K": (4096, 4096)}


def event_of(number: int, parts: Parts) -> Parts:
    """One event of a stream."""
    return framed(f"id:{number}\nevent:result\n:HTTP_STATUS/200\ndata:".encode(), parts, b"\n\n")


def size_of(asked: Asked) -> tuple[int, int]:
    """Width and height that the parameters ask for; 1024 by 1024 where they do not."""
    size = str(asked.object("parameters").get("size") or "1024*1024")
    width, _, height = size.partition("*")
    if width.isdecimal() and height.isdecimal():
        return int(width), int(height)
    return PIXELS.get(size, PIXELS["1K"])


def count_of(asked: Asked) -> int:
    """How many results the parameters ask for."""
    return int(asked.object("parameters").get("n") or 1)


def images(asked: Asked) -> Reply:
    """Images by URL; with ``answer-bytes`` as data URLs of that size, in JSON or in one line of SSE."""
    name = request_id(asked.upload.digest)
    count = count_of(asked)
    fills: list[Fill] = []
    if asked.script.answer_bytes >= 0:
        urls = ["data:image/png;base64," + MARK] * count
        fills = [Fill("image", 0, asked.script.answer_bytes // 4 * 4)] * count
    else:
        urls = [asked.result_url(f"{name}-{n}", "png") for n in range(count)]
    output = {"choices": choices_of(urls), "task_metric": {"TOTAL": count, "SUCCEEDED": count, "FAILED": 0}}
    body: dict[str, Any] = {"output": output, "request_id": name}
    usage = Usage(images=count)
    if asked.script.usage != "absent":
        usage.image_width, usage.image_height = size_of(asked)
        body["usage"] = {"image_count": count, "width": usage.image_width, "height": usage.image_height}
    parts = parts_of(body, *fills)
    if not asked.streams_natively:
        return Reply(JSON, name, parts, usage=usage)
    usage.images = count if "usage" in body else None  # a stream may say an image again: nobody counts those in it
    events = [Event(event_of(1, parts), output=True, usage=usage)]
    return Reply(SSE, name, events=events, error_event=broken("dashscope", asked.script, asked.upload.digest))


def choices_of(urls: list[str]) -> list[dict[str, Any]]:
    """One choice for each image."""
    return [{"finish_reason": "stop", "message": {"role": "assistant", "content": [{"image": url}]}} for url in urls]


def synthesized(asked: Asked) -> Reply:
    """``/services/audio/tts/SpeechSynthesizer``, which counts characters."""
    return _speech(asked, with_tokens=False)


def spoken(asked: Asked) -> Reply:
    """Speech from ``multimodal-generation``, which counts tokens too."""
    return _speech(asked, with_tokens=True)


def _speech(asked: Asked, *, with_tokens: bool) -> Reply:
    name = request_id(asked.upload.digest)
    text = str(asked.object("input").get("text") or "")
    size = asked.script.answer_bytes if asked.script.answer_bytes >= 0 else RESULT_BYTES
    if asked.streams_natively:
        failed = broken("dashscope", asked.script, asked.upload.digest)
        return Reply(SSE, name, events=_pieces(asked, text, size, with_tokens=with_tokens), error_event=failed)
    usage = _counted(asked, text, len(text), size, with_tokens=with_tokens)
    body = _said(asked, {"url": asked.result_url(name, "wav"), "data": ""}, "stop", usage)
    return Reply(JSON, name, parts_of(body), usage=usage)


def _counted(asked: Asked, text: str, characters: int, size: int, *, with_tokens: bool) -> Usage | None:
    if asked.script.usage == "absent":
        return None
    usage = Usage(characters=characters)
    if with_tokens:
        usage.input_tokens, usage.output_tokens = tokens_of(len(text.encode())), size // 1000 + 1
    return usage


def _said(asked: Asked, audio: dict[str, Any], reason: str, usage: Usage | None) -> dict[str, Any]:
    name = request_id(asked.upload.digest)
    output = {"audio": {**audio, "id": f"audio_{name}", "expires_at": CREATED + 86_400}, "finish_reason": reason}
    body: dict[str, Any] = {"output": output, "request_id": name}
    if usage is not None:
        body["usage"] = {"characters": usage.characters}
        if usage.input_tokens is not None and usage.output_tokens is not None:
            total = usage.input_tokens + usage.output_tokens
            body["usage"] |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
            body["usage"]["total_tokens"] = total
    return body


def _pieces(asked: Asked, text: str, size: int, *, with_tokens: bool) -> Iterator[Event]:
    """The sound in pieces of base64, the characters so far with each; the last event has the URL of the whole.

    A speech synthesizer names the sentence that a piece belongs to; all is one sentence here.
    """
    count = asked.script.events or max(1, size // PIECE_BYTES)
    groups = size // 3
    sentence = {} if with_tokens else {"type": "sentence-synthesis", "sentence": {"index": 0, "words": []}}
    for n in range(count):
        start, end = groups * n // count * 4, groups * (n + 1) // count * 4
        so_far = len(text) * (n + 1) // count
        usage = _counted(asked, text, so_far, size * (n + 1) // count, with_tokens=with_tokens)
        body = _said(asked, {"url": "", "data": MARK}, "null", usage)
        body["output"] |= sentence
        parts = parts_of(body, Fill("sound", start, end - start))
        yield Event(event_of(n + 1, parts), output=True, usage=usage)
    usage = _counted(asked, text, len(text), size, with_tokens=with_tokens)
    url = asked.result_url(request_id(asked.upload.digest), "wav")
    yield Event(event_of(count + 1, parts_of(_said(asked, {"url": url, "data": ""}, "stop", usage))), usage=usage)
