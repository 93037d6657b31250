"""Attributes that single backends read in place of the conventions' own: `tracing.compat` adds them to the spans.

    openinference  Phoenix, Arize: the kind of each span, without which an operation that the conventions have no name
                   for counts no tokens; reasoning tokens; recorded content (`observer.openinference`)
    langfuse       Langfuse: the kind, and when the first token came, which it takes from nowhere else
    arms           Alibaba Cloud ARMS, CMS: the kind, the sum of tokens, the first token in ns from the upstream's start
    signoz         SigNoz: the first token in s

None of them is on by default: Langfuse takes every number under gen_ai.usage for a kind of token, and so counts twice
what ARMS asks for. Pure.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from observability import names
from observability.observer.openinference import add_content
from observability.record import Record

Attributes = dict[str, Any]
_Adds = Callable[[Record, Attributes, Attributes], None]

_GENERATING: Final = frozenset({"chat", "text_completion", "generate_content", "video_generation"})
_EMBEDDING: Final = "embeddings"
_RERANKING: Final = frozenset({"rerank", "score"})


def compatible(record: Record, wanted: Sequence[str]) -> tuple[Attributes, Attributes]:
    """What the SERVER and the CLIENT span of a record have beside the conventions' attributes."""
    server: Attributes = {}
    client: Attributes = {}
    for name in wanted:
        _ADDING[name](record, server, client)
    return server, client


def compatible_attempt(wanted: Sequence[str]) -> Attributes:
    """What the span of an attempt has beside its own."""
    return {"openinference.span.kind": "CHAIN"} if "openinference" in wanted else {}


def _kind(fields: Attributes, generating: str, embedding: str, reranking: str) -> str | None:
    """The word for what an operation does; None for those that only look after something (files, tasks)."""
    operation = fields.get(names.GEN_AI_OPERATION_NAME)
    if operation in _GENERATING:
        return generating
    if operation == _EMBEDDING:
        return embedding
    return reranking if operation in _RERANKING else None


def _openinference(record: Record, server: Attributes, client: Attributes) -> None:
    fields = record["fields"]
    server["openinference.span.kind"] = "CHAIN"
    client["openinference.span.kind"] = _kind(fields, "LLM", "EMBEDDING", "RERANKER") or "CHAIN"
    reasoning = fields.get(names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)
    if reasoning is not None:
        client["llm.token_count.completion_details.reasoning"] = reasoning
    if not names.CONTENT.isdisjoint(fields):
        add_content(fields, server, client)


def _langfuse(record: Record, server: Attributes, client: Attributes) -> None:
    server["langfuse.observation.type"] = "span"
    client["langfuse.observation.type"] = _kind(record["fields"], "generation", "embedding", "retriever") or "span"
    first_token_ns = _first_token_ns(record)
    if first_token_ns is not None:
        seconds, rest_ns = divmod(record["start_ns"] + first_token_ns, 1_000_000_000)
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
        client["langfuse.observation.completion_start_time"] = f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _arms(record: Record, server: Attributes, client: Attributes) -> None:
    fields = record["fields"]
    server["gen_ai.span.kind"] = "ENTRY"
    kind = _kind(fields, "LLM", "EMBEDDING", "RERANKER")
    if kind is not None:
        client["gen_ai.span.kind"] = kind
    tokens = [fields.get(name) for name in (names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS)]
    if any(count is not None for count in tokens):
        client["gen_ai.usage.total_tokens"] = sum(count or 0 for count in tokens)
    waited_ns = _first_token_of_upstream_ns(record)
    if waited_ns is not None:
        client["gen_ai.response.time_to_first_token"] = waited_ns


def _signoz(record: Record, _server: Attributes, client: Attributes) -> None:
    first_token_ns = _first_token_ns(record)
    if first_token_ns is not None:
        client["gen_ai.server.ttft"] = first_token_ns / 1e9


def _first_token_ns(record: Record) -> int | None:
    """From accept; streams only."""
    first_token_ms = record["fields"].get(names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS)
    return None if first_token_ms is None else round(first_token_ms * 1e6)


def _first_token_of_upstream_ns(record: Record) -> int | None:
    """From the start of the CLIENT span."""
    first_token_ns, client = _first_token_ns(record), record.get("client")
    if first_token_ns is None or client is None:
        return None
    return max(0, record["start_ns"] + first_token_ns - client["start_ns"])


_ADDING: Final[dict[str, _Adds]] = {
    "openinference": _openinference,
    "langfuse": _langfuse,
    "arms": _arms,
    "signoz": _signoz,
}
