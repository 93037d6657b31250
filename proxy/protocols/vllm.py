"""vLLM's own protocol beside OpenAI's: rerank, in the three places where its clients look for it, and score."""

from typing import Final

from proxy.protocols.base import Operation

RERANK: Final = tuple(
    Operation(name="rerank", protocol="vllm", path=f"{version}/rerank", gen_ai_operation="rerank")
    for version in ("", "/v1", "/v2")
)
SCORE: Final = tuple(
    Operation(name="score", protocol="vllm", path=f"{version}/score", gen_ai_operation="score")
    for version in ("", "/v1")
)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {"rerank": (*RERANK, *SCORE)}
"""Scenario → operations."""
