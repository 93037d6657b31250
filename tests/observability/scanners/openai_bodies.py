"""JSON answers of the OpenAI protocol, and the streams of its other operations."""

import base64
import json
import random

from tests.observability.scanners.responses import (
    NAMES,
    OPENAI_ERROR,
    SSE,
    STOPPED,
    STREAMED,
    TOKENS,
    USAGE,
    Case,
    events,
    plain,
)

MESSAGE = {"role": "assistant", "content": "hi"}
ANSWER = {
    "id": "c-1",
    "model": "qwen-plus",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": USAGE,
}
ANSWERED = {**STREAMED, **TOKENS, **STOPPED, "usage_final": True}
DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 1, "image_tokens": 2, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 6},
}


CHAT_BODIES = [
    plain("answer", "chat.completions", ANSWER, **ANSWERED),
    plain(
        "answer with details",
        "chat.completions",
        {**ANSWER, "usage": {**USAGE, **DETAILS}},
        **ANSWERED,
        cache_read_tokens=5,
        cache_creation_tokens=3,
        reasoning_tokens=4,
        audio_tokens=7,
        image_tokens=2,
    ),
    *(
        plain(
            f"cached tokens as {name} writes them",
            "chat.completions",
            {**ANSWER, "usage": {**USAGE, **usage}},
            **ANSWERED,
            cache_read_tokens=5,
        )
        for name, usage in {
            "Moonshot": {"cached_tokens": 5},
            "DeepSeek": {"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 8},
            "somebody twice": {"cached_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}},
        }.items()
    ),
    plain(
        "two choices",
        "chat.completions",
        {**ANSWER, "choices": [{"index": 1, "finish_reason": "length"}, *ANSWER["choices"]]},
        **{**ANSWERED, "finish_reasons": ["stop", "length"]},
    ),
    plain(
        "tool calls",
        "chat.completions",
        {
            **ANSWER,
            "choices": [{"index": 0, "message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}],
        },
        **{**ANSWERED, "finish_reasons": ["tool_calls"]},
    ),
    plain(
        "white space and a byte order mark",
        "chat.completions",
        b"\xef\xbb\xbf \n" + json.dumps(ANSWER, indent=2).encode() + b"\r\n ",
        **ANSWERED,
    ),
    plain("NaN", "chat.completions", {**ANSWER, "logprobs": [float("nan")]}, **ANSWERED),
    plain("large", "chat.completions", {**ANSWER, "padding": ["y" * 50_000, {"model": 1}, "y" * 50_000]}, **ANSWERED),
    plain(
        "large content",
        "chat.completions",
        {
            "choices": [{"index": 0, "message": {"content": "x" * 80_000}, "finish_reason": "stop"}],
            "id": "c-1",
            "model": "qwen-plus",
            "usage": USAGE,
        },
        **ANSWERED,
    ),
    plain(
        "cut",
        "chat.completions",
        json.dumps(ANSWER).encode()[:-1],
        **{**ANSWERED, "complete": False, "usage_final": False, "failed": True},
    ),
    plain("junk", "chat.completions", b"<html>", failed=True),
    plain("list", "chat.completions", b"[1]", complete=True),
    plain("no body", "chat.completions", b""),
    plain(
        "error",
        "chat.completions",
        {**OPENAI_ERROR, "request_id": "r-1"},
        status=401,
        complete=True,
        error_code="invalid_api_key",
        upstream_request_id="r-1",
    ),
    plain(
        "large error",
        "chat.completions",
        {"padding": "y" * 70_000, **OPENAI_ERROR},
        status=400,
        complete=True,
        error_code="invalid_api_key",
    ),
    plain("error with status 200", "chat.completions", OPENAI_ERROR, complete=True, error_code="invalid_api_key"),
    plain(
        "old vLLM's error",
        "chat.completions",
        {"object": "error", "message": "m", "type": "NotFoundError", "code": 404},
        status=404,
        complete=True,
        error_code="NotFoundError",
    ),
    plain("somebody else's error", "chat.completions", {"detail": "Not Found"}, status=404, complete=True),
    plain(
        "completions",
        "completions",
        {
            "id": "c-1",
            "model": "qwen-plus",
            "choices": [{"text": "hi", "index": 0, "finish_reason": "stop"}],
            "usage": USAGE,
        },
        **ANSWERED,
    ),
    Case(
        "completions stream",
        "openai",
        "completions",
        events(
            *(
                {"id": "c-1", "model": "qwen-plus", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}
                for text, reason in (("", None), ("a", None), ("b", None), ("", "stop"))
            ),
            done=True,
        ),
        {**NAMES, **STOPPED, "first_output": True, "output_events": 2, "events": 5},
        SSE,
    ),
    plain(
        "embeddings",
        "embeddings",
        {
            "object": "list",
            "model": "e",
            "data": [{"index": n, "embedding": [0.5, -1e-3]} for n in range(3)],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
        },
        response_model="e",
        documents=3,
        input_tokens=9,
        usage_seen=True,
        usage_final=True,
        first_output=True,
        output_events=1,
        complete=True,
    ),
    plain(
        "large embeddings",
        "embeddings",
        {
            "model": "e",
            "data": [{"index": n, "embedding": [0.123456789] * 2000} for n in range(5)],
            "usage": {"prompt_tokens": 9},
        },
        response_model="e",
        documents=5,
        input_tokens=9,
        usage_seen=True,
        usage_final=True,
        first_output=True,
        output_events=1,
        complete=True,
    ),
]


IMAGE_USAGE = {
    "input_tokens": 50,
    "output_tokens": 1056,
    "total_tokens": 1106,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens_details": {"image_tokens": 1056},
}
IMAGE_TOKENS = {
    "input_tokens": 50,
    "output_tokens": 1056,
    "image_tokens": 1096,
    "usage_seen": True,
    "usage_final": True,
}
MADE = {"first_output": True, "output_events": 1, "complete": True}
SQUARE = {"image_width": 1024, "image_height": 1024}
PARTIAL = {
    "type": "image_generation.partial_image",
    "b64_json": "QUJD" * 5,
    "partial_image_index": 0,
    "size": "1024x1024",
}
COMPLETED = {
    "type": "image_generation.completed",
    "b64_json": "QUJD" * 30_000,
    "size": "1024x1024",
    "usage": IMAGE_USAGE,
}

PICTURE = base64.b64encode(random.Random(1).randbytes(90_000)).decode()  # like those of models, it does not shrink
IMAGES = [
    plain("images", "images.generations", {"created": 1, "data": [{"url": "u"}, {"url": "v"}]}, **MADE, images=2),
    plain(
        "image with usage",
        "images.generations",
        {"size": "1024x1024", "usage": IMAGE_USAGE, "data": [{"b64_json": "QUJD"}]},
        **MADE,
        **SQUARE,
        **IMAGE_TOKENS,
        images=1,
    ),
    plain(
        "large images",
        "images.generations",
        {"data": [{"b64_json": PICTURE}] * 2, "usage": IMAGE_USAGE, "size": "1024x1024"},
        **MADE,
        **SQUARE,
        **IMAGE_TOKENS,
        images=2,
    ),
    plain("no image", "images.generations", {"data": []}, complete=True),
    Case(
        "image stream",
        "openai",
        "images.generations",
        events(PARTIAL, COMPLETED),
        {**MADE, **SQUARE, **IMAGE_TOKENS, "output_events": 2, "images": 1, "events": 2},
        SSE,
    ),
    Case(
        "image stream, cut",
        "openai",
        "images.generations",
        events(COMPLETED, PARTIAL),
        {
            **MADE,
            **SQUARE,
            **IMAGE_TOKENS,
            "output_events": 2,
            "images": 1,
            "events": 2,
            "complete": False,
            "usage_final": False,
        },
        SSE,
    ),
    Case(
        "image stream, names only",
        "openai",
        "images.generations",
        b"event: image_generation.completed\ndata: {}\n\n",
        {**MADE, "images": 1, "events": 1},
        SSE,
    ),
    Case(
        "image stream, error",
        "openai",
        "images.generations",
        events({"type": "error", "code": "moderation_blocked", "message": "m"}),
        {"error_code": "moderation_blocked", "events": 1, "complete": True},
        SSE,
    ),
]
