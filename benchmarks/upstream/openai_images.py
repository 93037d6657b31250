"""The OpenAI protocol's images: generations, edits and variations, in JSON, in forms, and as events of a stream.

``gpt-image`` models answer inline only, count tokens and say the size; all others answer by URL unless they are asked
for ``b64_json``, and say no usage. An image that was sent counts 100 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.upstream.answers import (
    CREATED,
    JSON,
    RESULT_BYTES,
    SSE,
    TOKENS_PER_IMAGE,
    Asked,
    Event,
    Reply,
    tokens_of,
)
from benchmarks.upstream.errors import broken
from benchmarks.upstream.fills import MARK, Fill, framed, parts_of
from benchmarks.upstream.ledger import Usage

TOKENS_PER_GENERATED = 1056


def generations(asked: Asked) -> Reply:
    """``/images/generations``."""
    return _images(asked, "image_generation")


def edits(asked: Asked) -> Reply:
    """``/images/edits``: a form, or JSON."""
    return _images(asked, "image_edit")


def variations(asked: Asked) -> Reply:
    """``/images/variations``: a form."""
    return _images(asked, "")


def _images(asked: Asked, events: str) -> Reply:
    newer = asked.model.startswith("gpt-image")
    inline = newer or asked.document.get("response_format") == "b64_json"
    count = asked.number("n", 1)
    size = (asked.script.answer_bytes if asked.script.answer_bytes >= 0 else RESULT_BYTES) // 4 * 4  # whole groups
    fill = Fill("image", 0, size)
    usage = _usage(asked, count, newer=newer)
    if asked.streams and events:
        failed = broken("openai", asked.script, asked.upload.digest)
        return Reply(SSE, asked.name, events=_events(asked, events, fill, usage), error_event=failed)
    if inline:
        data = [{"b64_json": MARK} for _ in range(count)]
    else:
        data = [{"url": asked.result_url(f"{asked.name}-{n}", "png")} for n in range(count)]
    fills = [fill] * count if inline else []
    document = {"created": CREATED, "data": data, **_told(usage), **_size(usage)}
    return Reply(JSON, asked.name, parts_of(document, *fills), usage=usage)


def _usage(asked: Asked, count: int, *, newer: bool) -> Usage:
    usage = Usage(images=count)
    if not newer:
        return usage
    width, _, height = str(asked.document.get("size") or "").partition("x")
    if width.isdecimal() and height.isdecimal():
        usage.image_width, usage.image_height = int(width), int(height)
    if asked.script.usage != "absent":
        usage.image_tokens = TOKENS_PER_IMAGE * len(asked.upload.files)
        usage.input_tokens = tokens_of(len(str(asked.document.get("prompt", "")).encode())) + usage.image_tokens
        usage.output_tokens = TOKENS_PER_GENERATED * count
    return usage


def _told(usage: Usage) -> dict[str, Any]:
    """The usage object, if there is one."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return {}
    images = usage.image_tokens or 0
    details = {"text_tokens": usage.input_tokens - images, "image_tokens": images}
    total = usage.input_tokens + usage.output_tokens
    return {"usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "total_tokens": total,
                      "input_tokens_details": details}}  # fmt: skip


def _size(usage: Usage) -> dict[str, str]:
    return {} if usage.image_width is None else {"size": f"{usage.image_width}x{usage.image_height}"}


def _events(asked: Asked, name: str, fill: Fill, usage: Usage) -> Iterator[Event]:
    """For each image its partial ones and itself; the last says the usage of all."""
    size, count = _size(usage), usage.images or 1
    seen = Usage(image_width=usage.image_width, image_height=usage.image_height)
    for number in range(count):
        for index in range(asked.number("partial_images", 0)):
            kind = f"{name}.partial_image"
            body = {"type": kind, "created_at": CREATED, "partial_image_index": index, "b64_json": MARK, **size}
            yield Event(framed(b"event: %s\ndata: " % kind.encode(), parts_of(body, fill), b"\n\n"), True, seen)
        last = number == count - 1
        seen = usage if last else Usage(images=number + 1, image_width=seen.image_width, image_height=seen.image_height)
        kind = f"{name}.completed"
        body = {"type": kind, "created_at": CREATED, "b64_json": MARK, **size, **(_told(usage) if last else {})}
        yield Event(framed(b"event: %s\ndata: " % kind.encode(), parts_of(body, fill), b"\n\n"), True, seen)
