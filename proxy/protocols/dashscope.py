"""DashScope's own protocol (Alibaba Cloud Model Studio): its operations by scenario.

Streaming is asked with the header `X-DashScope-SSE`, and its events carry usage without being asked.
"""

from dataclasses import replace
from typing import Final

from proxy.protocols.base import Operation

TEXT_GENERATION: Final = Operation(
    name="text-generation",
    protocol="dashscope",
    path="/api/v1/services/aigc/text-generation/generation",
    gen_ai_operation="chat",
)
MULTIMODAL_GENERATION: Final = Operation(
    name="multimodal-generation",
    protocol="dashscope",
    path="/api/v1/services/aigc/multimodal-generation/generation",
    gen_ai_operation="chat",
)
# The same path makes images when the model is an image model; an image Model API knows that beforehand.
IMAGE_MULTIMODAL_GENERATION: Final = replace(
    MULTIMODAL_GENERATION, gen_ai_operation="generate_content", output_type="image"
)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "text": (TEXT_GENERATION, MULTIMODAL_GENERATION),
    "image": (IMAGE_MULTIMODAL_GENERATION,),
}
"""Scenario → operations."""
