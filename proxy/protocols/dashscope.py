"""DashScope's own protocol (Alibaba Cloud Model Studio): its operations by scenario.

Streaming is asked with the header `X-DashScope-SSE`, and its events carry usage without being asked; a task is asked
with `X-DashScope-Async`, and fetched below `/api/v1/tasks`.
"""

from dataclasses import replace
from typing import Final

from proxy.protocols.base import CHANGING, Operation

_SERVICES: Final = "/api/v1/services"


def _operation(name: str, path: str, gen_ai_operation: str, output_type: str | None = None) -> Operation:
    return Operation(
        name=name,
        protocol="dashscope",
        path=f"{_SERVICES}/{path}",
        gen_ai_operation=gen_ai_operation,
        output_type=output_type,
    )


TEXT_GENERATION: Final = _operation("text-generation", "aigc/text-generation/generation", "chat")
MULTIMODAL_GENERATION: Final = _operation("multimodal-generation", "aigc/multimodal-generation/generation", "chat")
# The same path makes images or speech, as the model is; a Model API's scenario says so beforehand.
IMAGE_GENERATION: Final = replace(MULTIMODAL_GENERATION, gen_ai_operation="generate_content", output_type="image")
SPEECH_GENERATION: Final = replace(IMAGE_GENERATION, output_type="speech")

IMAGES: Final = (
    *(
        _operation(name, f"aigc/{path}", "generate_content", "image")
        for name, path in (
            ("text2image", "text2image/image-synthesis"),
            ("image2image", "image2image/image-synthesis"),
            ("out-painting", "image2image/out-painting"),
            ("virtual-model", "virtualmodel/generation"),
            ("background-generation", "background-generation/generation"),
            ("image-generation", "image-generation/generation"),
        )
    ),
    IMAGE_GENERATION,
)
ALIYUN_IMAGES: Final = replace(
    IMAGE_GENERATION,
    path="/aliyun/v1/images/generations",
    upstream_path=IMAGE_GENERATION.path,
    error_protocol="openai",
    only_provider="dashscope",
)
"""DashScope's image call at the address that platforms give it beside OpenAI's: every image Model API has
it, whatever its protocols. Its errors are OpenAI's, and only a DashScope service can serve it."""
VIDEOS: Final = (
    _operation("video-generation", "aigc/video-generation/video-synthesis", "video_generation"),
    _operation("image2video", "aigc/image2video/video-synthesis", "video_generation"),
)
SPEECH: Final = (
    _operation("speech-synthesizer", "audio/tts/SpeechSynthesizer", "generate_content", "speech"),
    SPEECH_GENERATION,
)
EMBEDDINGS: Final = tuple(
    _operation(name, f"embeddings/{name}/{name}", "embeddings") for name in ("text-embedding", "multimodal-embedding")
)
RERANK: Final = _operation("text-rerank", "rerank/text-rerank/text-rerank", "rerank")
RERANKS: Final = Operation(
    name="reranks", protocol="dashscope", path="/compatible-api/v1/reranks", gen_ai_operation="rerank"
)
"""As OpenAI would have it."""
FETCH_TASK: Final = Operation(
    name="tasks",
    protocol="dashscope",
    path="/api/v1/tasks",
    methods=("GET",),
    gen_ai_operation="fetch_task",
    below=True,
    names_model=False,
)
CHANGE_TASK: Final = replace(FETCH_TASK, methods=CHANGING, gen_ai_operation="manage_task", replayable=False)
TASKS: Final = (FETCH_TASK, CHANGE_TASK)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "text": (TEXT_GENERATION, MULTIMODAL_GENERATION),
    "image": (*IMAGES, *TASKS),
    "video": (*VIDEOS, *TASKS),
    "speech": SPEECH,
    "embedding": EMBEDDINGS,
    "rerank": (RERANK, RERANKS),
}
"""Scenario → operations."""
