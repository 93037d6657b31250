"""The OpenAI protocol: its operations by scenario."""

from typing import Final

from proxy.protocols.base import Operation

CHAT_COMPLETIONS: Final = Operation(
    name="chat.completions",
    protocol="openai",
    path="/v1/chat/completions",
    gen_ai_operation="chat",
    asks_usage=True,
)
COMPLETIONS: Final = Operation(
    name="completions",
    protocol="openai",
    path="/v1/completions",
    gen_ai_operation="text_completion",
    output_type="text",
    asks_usage=True,
)
EMBEDDINGS: Final = Operation(
    name="embeddings",
    protocol="openai",
    path="/v1/embeddings",
    gen_ai_operation="embeddings",
)
IMAGES_GENERATIONS: Final = Operation(
    name="images.generations",
    protocol="openai",
    path="/v1/images/generations",
    gen_ai_operation="generate_content",
    output_type="image",
)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "text": (CHAT_COMPLETIONS, COMPLETIONS),
    "embedding": (EMBEDDINGS,),
    "image": (IMAGES_GENERATIONS,),
}
"""Scenario → operations."""
