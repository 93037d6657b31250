"""What the client asks for and the upstream answers, agreed between the two.

A request carries its order to the upstream in the text of its first message, ``do-<what>-<number>-<number>``: that
reaches an upstream through every contestant, when headers, paths, the order of keys, and fields as ``user`` may not:

* ``do-paced-N-MS``: N server-sent events, MS milliseconds apart; 0: as fast as they are taken;
* ``do-idle-0-0``: one event, and then nothing;
* ``do-image-BYTES-0``: a chat answer with an image of so many bytes, in base64;
* ``do-digest-0-0``: the answer's text is the SHA-256 of the image in the request.

Without an order a chat is answered with `CHAT_ANSWER`, or if it is larger than `KEPT_BYTES` with one in which
``prompt_tokens`` are the bytes received; an embeddings request with 1 MB of numbers. Every event carries the instant
at which it was sent as ``@`` and 19 digits of CLOCK_MONOTONIC's nanoseconds, which all processes of a machine share;
no other ``@`` is in an answer.
"""

from __future__ import annotations

import base64
import json
import random
import re
from functools import lru_cache
from typing import Any

from benchmarks.contestants import ANSWER, REQUEST

CHAT_PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
MODEL = "qwen-plus"
EVENTS = 200
KEPT_BYTES = 64 * 1024
"""What the upstream looks at of a body. Those with an order are shorter; of longer ones it tells how long they were."""
ORDER = re.compile(rb'"do-([a-z]+)-(\d+)-(\d+): ')
STAMP = re.compile(rb"@(\d{19})")
IMAGE = re.compile(rb"base64,([A-Za-z0-9+/=]+)")
RECEIVED = re.compile(rb'"prompt_tokens":\s*(\d+)')
SMALL_CHAT = REQUEST
CHAT_ANSWER = ANSWER

_EVENT = (
    b'data: {"id":"chatcmpl-2f1d6ab0c1e94f5f8a53","object":"chat.completion.chunk","created":1716430652,'
    b'"model":"qwen-plus","choices":[{"index":0,"delta":{"content":"@%019d"},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-2f1d6ab0c1e94f5f8a53","object":"chat.completion.chunk","created":1716430652,'
    b'"model":"qwen-plus","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":38,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


def order(what: str, number: int = 0, other: int = 0) -> str:
    """What a text begins with that asks the upstream for this."""
    return f"do-{what}-{number}-{other}: "


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def streamed(what: str, number: int = 0, other: int = 0) -> bytes:
    """A chat request for a stream."""
    text = order(what, number, other) + "How does a sluice gate control the water level of a lock?"
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "model": MODEL}
    return _encoded({**fields, "stream": True, "stream_options": {"include_usage": True}})


def for_image(size: int) -> bytes:
    """A chat request that is answered with an image of `size` bytes."""
    text = order("image", size) + "Draw a lock with two sluice gates."
    return _encoded({"messages": [{"role": "user", "content": text}], "model": MODEL})


def upload(size: int, what: str = "", *, model_first: bool = False) -> bytes:
    """A chat request of `size` bytes (at least 512) with an image; the model last, as all official SDKs do it."""
    text = (order(what) if what else "") + "What is in this picture?"
    model = b'"model":"' + MODEL.encode() + b'"'
    begin, end = (b"{" + model + b",", b"}") if model_first else (b"{", b"," + model + b"}")
    head = begin + b'"messages":[{"role":"user","content":[' + _encoded({"type": "text", "text": text})
    head += b',{"type":"image_url","image_url":{"url":"data:image/png;base64,'
    tail = b'"}}]}]' + end
    return head + image_text(size - len(head) - len(tail)) + tail


def for_embeddings() -> bytes:
    """An embeddings request."""
    return _encoded({"input": ["a sluice gate"] * 50, "model": MODEL, "encoding_format": "float"})


def image_text(length: int) -> bytes:
    """So many characters of base64, the same ones each time."""
    seed = _noise()
    whole, rest = divmod(max(0, length), len(seed))
    return seed * whole + seed[:rest]


@lru_cache
def _noise() -> bytes:
    return base64.b64encode(random.Random(7).randbytes(48 * 1024))


def event(sent_ns: int) -> bytes:
    """One event of a stream, sent at that instant."""
    return _EVENT % sent_ns


def last_event(events: int) -> bytes:
    """What ends a stream: usage and ``[DONE]``."""
    return _LAST % (events, 38 + events)


def chat_answer(text: str, prompt_tokens: int) -> bytes:
    """A chat answer with this text."""
    fields = json.loads(CHAT_ANSWER)
    fields["choices"][0]["message"]["content"] = text
    fields["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": 46, "total_tokens": prompt_tokens + 46}
    return _encoded(fields)


@lru_cache(maxsize=8)
def image_answer(size: int) -> bytes:
    """A chat answer with an image of `size` bytes: `size` x 4/3 characters."""
    text = image_text(-(-size // 3) * 4).decode()
    return chat_answer(f"data:image/png;base64,{text}", 38)


@lru_cache
def embeddings_answer() -> bytes:
    """50 embeddings of 1,024 numbers: 1.01 MB."""
    numbers = random.Random(7)
    data = [
        {"object": "embedding", "index": index, "embedding": [round(numbers.uniform(-1, 1), 17) for _ in range(1024)]}
        for index in range(50)
    ]
    usage = {"prompt_tokens": 200, "total_tokens": 200}
    return _encoded({"object": "list", "data": data, "model": MODEL, "usage": usage})
