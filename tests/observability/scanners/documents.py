"""Embeddings, rerank and score."""

from typing import Any

from tests.observability.scanners.responses import answer, events, stream

TOLD = {"first_output": True, "output_events": 1, "complete": True}
USED = {"usage_seen": True, "usage_final": True}
RANKED = [{"index": n, "relevance_score": 0.5, "document": {"text": "a"}} for n in (2, 0)]
SCORED = [{"index": n, "object": "score", "score": 0.5} for n in range(3)]
VECTORS = [{"text_index": n, "embedding": [0.5, -1e-3]} for n in range(3)]
LARGE_VECTORS = [{"embedding": [0.123456789] * 2000, "text_index": n} for n in range(5)]
BOTH = {"prompt_tokens": 9, "total_tokens": 9}
TOTAL = {"total_tokens": 9}


def ranked(usage: object = BOTH, **more: Any) -> dict[str, Any]:
    """As vLLM has it."""
    return {"id": "rr-1", "model": "m", "usage": usage, "results": RANKED, **more}


def native(usage: object = TOTAL, **output: Any) -> dict[str, Any]:
    """As DashScope has it."""
    return {"request_id": "r-1", "output": output, "usage": usage}


FLAT = {**TOLD, **USED, "input_tokens": 9}
NAMED = {**FLAT, "response_id": "rr-1", "response_model": "m"}
NATIVE = {**FLAT, "upstream_request_id": "r-1"}

DOCUMENTS = [
    answer("openai", "embeddings", "total alone", {"data": VECTORS, "usage": TOTAL}, **FLAT, documents=3),
    answer("openai", "embeddings", "no usage", {"data": VECTORS}, **TOLD, documents=3),
    *(
        case
        for protocol, operation in (("vllm", "rerank"), ("dashscope", "reranks"))
        for case in (
            answer(protocol, operation, "answer", ranked(), **NAMED, documents=2),
            answer(protocol, operation, "total alone", ranked(TOTAL), **NAMED, documents=2),
            answer(protocol, operation, "large", ranked(padding="y" * 70_000), **NAMED, documents=2),
            answer(protocol, operation, "empty", {"results": [], "usage": BOTH}, **USED, input_tokens=9, complete=True),
            answer(protocol, operation, "odd types", {"results": {"a": 1}, "usage": [], "id": 1}, complete=True),
        )
    ),
    answer(
        "vllm",
        "score",
        "answer",
        {"id": "rr-1", "object": "list", "model": "m", "data": SCORED, "usage": {**BOTH, "completion_tokens": 0}},
        **NAMED,
        output_tokens=0,
        documents=3,
    ),
    stream("vllm", "rerank", "as an event", events(ranked(), done=True), **NAMED, documents=2, events=2),
    stream("openai", "embeddings", "as an event", events({"data": VECTORS}), **TOLD, documents=3, events=1),
    answer("dashscope", "text-embedding", "answer", native(embeddings=VECTORS), **NATIVE, documents=3),
    answer("dashscope", "text-embedding", "large", native(embeddings=LARGE_VECTORS), **NATIVE, documents=5),
    answer(
        "dashscope",
        "text-embedding",
        "a file of texts",
        {"request_id": "r-1", "output": {"task_id": "t-1", "task_status": "PENDING"}},
        upstream_request_id="r-1",
        task_id="t-1",
        complete=True,
    ),
    answer(
        "dashscope",
        "multimodal-embedding",
        "answer",
        native(
            {
                "input_tokens": 9,
                "input_tokens_details": {"image_tokens": 6, "text_tokens": 3},
                "image_count": 1,
                "image_tokens": 6,
                "duration": 2,
                "total_tokens": 9,
            },
            embeddings=[{"index": 0, "type": "image", "embedding": [0.5]}],
        ),
        **NATIVE,
        image_tokens=6,
        seconds=2.0,
        documents=1,
    ),
    answer("dashscope", "text-rerank", "answer", native(results=RANKED), **NATIVE, documents=2),
    answer(
        "dashscope",
        "text-rerank",
        "large",
        native(results=[{"document": {"text": "x" * 40_000}, "index": 0, "relevance_score": 0.5}] * 4),
        **NATIVE,
        documents=4,
    ),
    stream("dashscope", "text-rerank", "as an event", events(native(results=RANKED)), **NATIVE, documents=2, events=1),
    *(
        answer(
            "dashscope",
            operation,
            "odd types",
            {"output": {"embeddings": 5, "results": "x"}, "usage": 7},
            complete=True,
        )
        for operation in ("text-embedding", "multimodal-embedding", "text-rerank")
    ),
]
