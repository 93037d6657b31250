"""Chat streams of the OpenAI protocol."""

from typing import Any

from tests.observability.scanners.responses import NAMES, SSE, STOPPED, STREAMED, TOKENS, USAGE, Case, events


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One chunk of a chat stream."""
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "qwen-plus", "choices": list(choices), **more}


def said(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> dict[str, Any]:
    """One choice of a chunk."""
    return {"index": index, "delta": delta, "finish_reason": reason}


ROLE = chunk(said({"role": "assistant", "content": ""}))
HELLO = chunk(said({"content": "你好"}))
STOP = chunk(said({}, "stop"))
EMPTY_USAGE = chunk(usage=USAGE)


def chat(name: str, body: bytes, **facts: Any) -> Case:
    """A chat stream; one that begins with ROLE and HELLO as most."""
    return Case(name, "openai", "chat.completions", body, facts, SSE)


CHAT_STREAMS = [
    chat(
        "usage late",
        events(ROLE, HELLO, STOP, EMPTY_USAGE, done=True),
        **STREAMED,
        **TOKENS,
        **STOPPED,
        events=5,
        usage_final=True,
    ),
    chat(
        "usage null before",
        events({**ROLE, "usage": None}, {**HELLO, "usage": None}, STOP, EMPTY_USAGE, done=True),
        **STREAMED,
        **TOKENS,
        **STOPPED,
        events=5,
        usage_final=True,
    ),
    chat(
        "usage in the finish chunk",
        events(ROLE, HELLO, {**STOP, "usage": USAGE}, done=True),
        **STREAMED,
        **TOKENS,
        **STOPPED,
        events=4,
        usage_final=True,
    ),
    chat(
        "usage in every chunk",
        events(
            {**ROLE, "usage": {"prompt_tokens": 13, "completion_tokens": 0}},
            {**HELLO, "usage": {**USAGE, "completion_tokens": 6}},
            {**STOP, "usage": USAGE},
            done=True,
        ),
        **STREAMED,
        **TOKENS,
        **STOPPED,
        events=4,
        usage_final=True,
    ),
    chat("usage absent", events(ROLE, HELLO, STOP, done=True), **STREAMED, **STOPPED, events=4),
    chat(
        "no [DONE]", events(ROLE, HELLO, STOP, EMPTY_USAGE), **STREAMED, **TOKENS, **STOPPED, events=4, usage_final=True
    ),
    chat(
        "no finish",
        events(ROLE, HELLO, {**HELLO, "usage": USAGE}),
        **{**STREAMED, "output_events": 2},
        **TOKENS,
        events=3,
    ),
    chat("no finish, [DONE]", events(ROLE, HELLO, done=True), **STREAMED, events=3, complete=True),
    chat("role only", events(ROLE), **NAMES, events=1),
    chat("CRLF", events(ROLE, HELLO, STOP, end="\r\n\r\n", done=True), **STREAMED, **STOPPED, events=4),
    chat(
        "comments",
        b": ping\n\n" + events(ROLE, HELLO) + b":keepalive\n\n" + events(STOP, done=True),
        **STREAMED,
        **STOPPED,
        events=4,
    ),
    chat(
        "reasoning, tools, refusal",
        events(
            chunk(said({"reasoning_content": "hm"})),
            chunk(said({"tool_calls": [{"index": 0}]})),
            chunk(said({"refusal": "no"})),
            chunk(said({"function_call": {"name": "f"}})),
            chunk(said({"tool_calls": [], "content": None})),
            chunk(said({}, "tool_calls")),
        ),
        **{**STREAMED, "output_events": 4},
        finish_reasons=["tool_calls"],
        complete=True,
        events=6,
    ),
    chat(
        "two choices",
        events(
            chunk(said({"content": "b"}, index=1)), chunk(said({"content": "a"})), chunk(said({}, "length", 1)), STOP
        ),
        **{**STREAMED, "output_events": 2},
        events=4,
        complete=True,
        finish_reasons=["stop", "length"],
    ),
    chat(
        "one of two choices finished",
        events(chunk(said({"content": "b"}, index=1)), HELLO, STOP),
        **{**STREAMED, "output_events": 2},
        events=3,
        finish_reasons=["stop"],
    ),
    chat(
        "a second choice begins after the first finished",
        events(HELLO, {**STOP, "usage": USAGE}, chunk(said({"content": "b"}, index=1))),
        **{**STREAMED, "output_events": 2},
        **TOKENS,
        events=3,
        finish_reasons=["stop"],
    ),
    chat(
        "Azure's first chunk",
        events({"id": "", "model": "", "choices": [], "prompt_filter_results": []}, HELLO, STOP),
        **STREAMED,
        **STOPPED,
        events=3,
    ),
    chat(
        "error event",
        events(ROLE, HELLO, {"error": {"message": "m", "type": "server_error", "code": "internal_error"}}),
        **STREAMED,
        events=3,
        error_code="internal_error",
        complete=True,
    ),
    chat(
        "error event without code",
        events({"error": {"message": "m", "type": "BadRequestError", "code": 400}}),
        events=1,
        error_code="BadRequestError",
        complete=True,
    ),
    chat(
        "error event without anything",
        events({"error": "boom"}, done=True),
        events=2,
        error_code="error",
        complete=True,
    ),
    chat(
        "error and [DONE]: usage so far is not final",
        events({**HELLO, "usage": USAGE}, {"error": {"code": "x"}}, done=True),
        **STREAMED,
        **TOKENS,
        events=3,
        error_code="x",
        complete=True,
    ),
    chat("named error", b"event: error\ndata: oops\n\n", events=1, error_code="error", complete=True),
    chat(
        "DashScope's error",
        events({"code": "Throttling", "message": "m", "request_id": "r-1"}),
        events=1,
        error_code="Throttling",
        upstream_request_id="r-1",
        complete=True,
    ),
    chat(
        "odd types",
        events(
            {"id": 5, "model": None, "choices": {}, "usage": []},
            {
                "choices": [None, 3, {"index": "a", "delta": [], "finish_reason": 7}],
                "usage": {"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": 5},
            },
            [],
            "x",
            None,
        ),
        events=5,
        usage_seen=True,
    ),
    chat("data that are no JSON", b"data: ping\n\n" + events(HELLO, STOP), **STREAMED, **STOPPED, events=3),
    chat("NaN", events(HELLO, {**STOP, "logprobs": float("nan")}), **STREAMED, **STOPPED, events=2),
    chat(
        "a broken document",
        events(HELLO) + b'data: {"choices":[}\n\n' + events(STOP),
        **STREAMED,
        events=2,
        failed=True,
    ),
    chat("last line without blank line", events(HELLO, STOP) + b"data: [DONE]", **STREAMED, **STOPPED, events=3),
    chat(
        "after [DONE] nothing counts",
        events(HELLO, STOP, done=True) + b"data: {\n\ndata: {}\n\n",
        **STREAMED,
        **STOPPED,
        events=3,
    ),
    chat(
        "larger than what is decoded at once",
        events(chunk(said({"content": "x" * 70_000})), {**STOP, "padding": "y" * 70_000, "usage": USAGE}),
        **STREAMED,
        **TOKENS,
        **STOPPED,
        events=2,
        usage_final=True,
    ),
    chat("nothing", b""),
]
