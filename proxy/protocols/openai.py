"""The OpenAI protocol: its operations by scenario."""

from typing import Final

from proxy.protocols.base import CHANGING, Operation

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
RESPONSES: Final = Operation(
    name="responses",
    protocol="openai",
    path="/v1/responses",
    gen_ai_operation="chat",
)
EMBEDDINGS: Final = Operation(
    name="embeddings",
    protocol="openai",
    path="/v1/embeddings",
    gen_ai_operation="embeddings",
)
IMAGES: Final = tuple(
    Operation(
        name=f"images.{name}",
        protocol="openai",
        path=f"/v1/images/{name}",
        gen_ai_operation="generate_content",
        output_type="image",
    )
    for name in ("generations", "edits", "variations")
)
SPEECH: Final = Operation(
    name="audio.speech",
    protocol="openai",
    path="/v1/audio/speech",
    gen_ai_operation="generate_content",
    output_type="speech",
)
TRANSCRIPTIONS: Final = tuple(
    Operation(
        name=f"audio.{name}",
        protocol="openai",
        path=f"/v1/audio/{name}",
        gen_ai_operation="generate_content",
        output_type="text",
    )
    for name in ("transcriptions", "translations")
)


def _managed(name: str) -> tuple[Operation, Operation]:
    """What is looked up and changed below one path: a look may be repeated, a change may have happened already."""
    look = Operation(
        name=name,
        protocol="openai",
        path=f"/v1/{name}",
        methods=("GET",),
        gen_ai_operation=f"manage_{name}",
        below=True,
        names_model=False,
    )
    change = Operation(
        name=name,
        protocol="openai",
        path=f"/v1/{name}",
        methods=CHANGING,
        gen_ai_operation=f"manage_{name}",
        below=True,
        names_model=False,
        replayable=False,
        creates_job=True,
    )
    return look, change


OTHERS: Final = tuple(
    operation for name in ("models", "files", "uploads", "batches", "fine_tuning") for operation in _managed(name)
)

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "text": (CHAT_COMPLETIONS, COMPLETIONS, RESPONSES),
    "embedding": (EMBEDDINGS,),
    "image": IMAGES,
    "speech": (SPEECH, *TRANSCRIPTIONS),
    "others": OTHERS,
}
"""Scenario → operations."""
