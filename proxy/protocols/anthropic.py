"""The Anthropic protocol: its operations by scenario."""

from typing import Final

from proxy.protocols.base import Operation

MESSAGES: Final = Operation(
    name="messages",
    protocol="anthropic",
    path="/v1/messages",
    gen_ai_operation="chat",
)
COUNT_TOKENS: Final = Operation(
    name="messages.count_tokens",
    protocol="anthropic",
    path="/v1/messages/count_tokens",
    gen_ai_operation="count_tokens",
)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {"text": (MESSAGES, COUNT_TOKENS)}
"""Scenario → operations."""
