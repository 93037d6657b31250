"""Requests and answers of every protocol, as messages of the conventions."""

import base64
import hashlib
import json
from typing import Any

import pytest

from observability.observer.content.load import load
from observability.observer.content.messages import answered, asked
from observability.redaction import Redaction
from tests.observability.wire.test_media import gif, png

MARK = "0" * 32
PNG = png(64, 32)
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
WAV = base64.b64encode(b"RIFFaudio").decode()
BARE = base64.b64encode(PNG * 20).decode()


def tree(document: Any) -> Any:
    return load(json.dumps(document).encode(), MARK, Redaction(), is_json=True, cut=False)


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def blob(data: bytes = PNG, kind: str = "image/png", modality: str = "image", **size: int) -> dict[str, Any]:
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"type": "blob", "modality": modality, "mime_type": kind, "content": "", **facts, **size}


def unknown(**document: Any) -> dict[str, Any]:
    return {"type": "generic", "generic_type": "request", "content": document}


def score(**said: Any) -> dict[str, Any]:
    return {"type": "generic", "generic_type": "score", "content": said}


SIZED = blob(width=64, height=32)
LINK = {"type": "uri", "modality": "image", "uri": "https://x.example/a.png"}


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": list(parts)}] if parts else []


ASKED: list[tuple[str, Any, list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        "openai chat",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "name": "jo", "content": "hi"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}]},
                {"role": "tool", "tool_call_id": "t1", "content": "found"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what?"},
                    {"type": "image_url", "image_url": {"url": URL}},
                    {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                    {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}}]},
            ],
        },
        [
            {"role": "system", "parts": [text("be brief")]},
            {"role": "user", "name": "jo", "parts": [text("hi")]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "t1", "name": "look", "arguments": '{"a":1}'}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": "found"}]},
            {"role": "user", "parts": [
                text("what?"), SIZED, LINK, blob(b"RIFFaudio", "audio/wav", "audio"),
                {"type": "file", "modality": "document", "file_id": "file-1"}]},
        ],
        [],
    ),
    ("completions", {"prompt": ["a", "b"]}, user(text("a"), text("b")), []),
    (
        "responses",
        {
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": [
                    {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": URL}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "found"},
            ],
        },
        [
            {"role": "user", "parts": [text("hi"), SIZED]},
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": "{}"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "found"}]},
        ],
        [text("be brief")],
    ),
    ("responses, plain", {"input": "hi"}, user(text("hi")), []),
    ("embeddings", {"input": ["a", "b"]}, user(text("a"), text("b")), []),
    ("embeddings of tokens", {"input": [1, 2]}, user(unknown(input=[1, 2])), []),
    ("images", {"prompt": "a cat", "n": 2}, user(text("a cat")), []),
    ("speech", {"input": "hello", "voice": "x", "instructions": "slowly"}, user(text("hello")), [text("slowly")]),
    (
        "anthropic",
        {
            "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "image", "source": {
                        "type": "base64", "media_type": "image/gif", "data": base64.b64encode(gif(3, 4)).decode()}},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "letter"}}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "found"}]}]},
            ],
        },
        [
            {"role": "user", "parts": [
                blob(gif(3, 4), "image/gif", width=3, height=4), LINK,
                text("letter")]},
            {"role": "assistant", "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "t1", "name": "look", "arguments": {"a": 1}}]},
            {"role": "user", "parts": [{"type": "tool_call_response", "id": "t1", "response": "found"}]},
        ],
        [text("be brief")],
    ),
    (
        "dashscope multimodal",
        {"input": {"messages": [{"role": "user", "content": [
            {"image": URL}, {"text": "what?"}, {"video": ["https://x.example/a.png"]}]}]}},
        user(SIZED, text("what?"), {**LINK, "modality": "video"}),
        [],
    ),
    ("dashscope prompt", {"input": {"prompt": "hi"}}, user(text("hi")), []),
    ("dashscope image", {"input": {"prompt": "a cat", "images": [URL]}}, user(text("a cat"), SIZED), []),
    ("rerank", {"input": {"query": "q", "documents": ["a", "b"]}}, user(text("q"), text("a"), text("b")), []),
    ("a form", [["model", "m"], ["prompt", "a cat"], ["image", URL]], user(text("a cat"), SIZED), []),
    ("nothing known", {"foo": 1}, user(unknown(foo=1)), []),
    ("nothing", {}, [], []),
    ("files by name", {"input": {"messages": [{"content": [{"image": "/files/a.png"}, {"image": f" {URL}"}]}]}},
        user({**LINK, "uri": "/files/a.png"}, SIZED), []),
    ("no messages", {"messages": []}, [], []),
    ("functions, as they were at first",
        {"messages": [
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "found"},
        ]},
        [
            {"role": "assistant", "parts": [{"type": "tool_call", "name": "look", "arguments": "{}"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "response": "found"}], "name": "look"},
        ], []),
    ("a film of two images",
        {"input": {"prompt": "a cat", "first_frame_url": LINK["uri"], "last_frame_url": LINK["uri"]}},
        user(text("a cat"), LINK, LINK), []),
    ("odd", {"messages": ["x", None, 5, {"content": 7}, {"role": 5, "content": [None, {"type": 5}]}]},
     [*user(text("x")), {"role": "user", "parts": []}, {"role": "user", "parts": []}], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "messages", "system"), [case[1:] for case in ASKED], ids=[case[0] for case in ASKED]
)
def test_what_is_asked(document, messages, system):
    said = asked(tree(document))
    assert json.loads(json.dumps(said.messages)) == messages
    assert said.system == system


def assistant(*parts: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    return {"role": "assistant", "parts": list(parts), "finish_reason": reason}


ANSWERED: list[tuple[str, Any, list[dict[str, Any]]]] = [
    (
        "openai chat",
        {"choices": [
            {"message": {"role": "assistant", "content": "a", "reasoning_content": "hm"}, "finish_reason": "length"},
            {"message": {"refusal": "no"}, "finish_reason": None}]},
        [assistant({"type": "reasoning", "content": "hm"}, text("a"), reason="length"), assistant(text("no"))],
    ),
    ("completions", {"choices": [{"text": "a", "finish_reason": "stop"}]}, [assistant(text("a"))]),
    (
        "responses",
        {"status": "completed", "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "image_generation_call", "result": BARE}]},
        [assistant(
            text("a"), {"type": "tool_call", "id": "c1", "name": "look", "arguments": "{}"},
            blob(PNG * 20, width=64, height=32), reason="completed")],
    ),
    (
        "anthropic",
        {"role": "assistant", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"},
        [assistant(text("a"), reason="end_turn")],
    ),
    (
        "dashscope",
        {"output": {"choices": [{"message": {"content": [{"text": "a"}]}, "finish_reason": "null"}]}},
        [assistant(text("a"))],
    ),
    ("dashscope text", {"output": {"text": "a", "finish_reason": "stop"}}, [assistant(text("a"))]),
    (
        "images",
        {"data": [{"b64_json": BARE, "revised_prompt": "a cat"}, {"url": "https://x.example/a.png"}]},
        [assistant(blob(PNG * 20, width=64, height=32), text("a cat"), LINK)],
    ),
    ("dashscope images", {"output": {"results": [{"url": "https://x.example/a.png"}]}}, [assistant(LINK)]),
    ("images in a chat",
        {"choices": [{"message": {"content": "", "images": [{"type": "image_url", "image_url": {"url": URL}}]}}]},
        [assistant(SIZED)]),
    ("embeddings", {"data": [{"embedding": [0.1, 0.2]}]}, []),
    ("rerank", {"results": [{"index": 1, "relevance_score": 0.9}]}, [assistant(score(index=1, relevance_score=0.9))]),
    ("dashscope rerank", {"output": {"results": [{"index": 1, "relevance_score": 0.9}]}},
        [assistant(score(index=1, relevance_score=0.9))]),
    ("score", {"data": [{"index": 0, "object": "score", "score": 0.5}]},
        [assistant(score(index=0, object="score", score=0.5))]),
    ("transcription", {"text": "hello"}, [assistant(text("hello"))]),
    ("plain text", "hello", [assistant(text("hello"))]),
    ("an error", {"error": {"message": "no"}}, []),
    ("odd", {"choices": [None, {"message": 5}, 7]}, [assistant()]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "messages"), [case[1:] for case in ANSWERED], ids=[case[0] for case in ANSWERED])
def test_what_is_answered(document, messages):
    assert json.loads(json.dumps(answered(tree(document), whole=True))) == messages


def test_an_answer_that_was_cut_says_that_it_ended_with_an_error():
    (message,) = answered(tree({"choices": [{"text": "a"}]}), whole=False)
    assert message["finish_reason"] == "error"
