"""Which answer lives at which path."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.upstream import (
    anthropic,
    dashscope,
    dashscope_media,
    dashscope_tasks,
    documents,
    openai,
    openai_audio,
    openai_images,
    openai_resources,
    responses,
)
from benchmarks.upstream.answers import Asked, Reply
from benchmarks.upstream.fills import Fill

_SERVICES = "/api/v1/services/"
_POSTED: dict[str, Callable[[Asked], Reply]] = {
    "/v1/chat/completions": openai.chat,
    "/v1/completions": openai.completions,
    "/v1/embeddings": openai.embeddings,
    "/v1/responses": responses.responses,
    "/v1/images/generations": openai_images.generations,
    "/v1/images/edits": openai_images.edits,
    "/v1/images/variations": openai_images.variations,
    "/v1/audio/speech": openai_audio.speech,
    "/v1/audio/transcriptions": openai_audio.transcriptions,
    "/v1/audio/translations": openai_audio.translations,
    "/v1/messages": anthropic.messages,
    "/v1/messages/count_tokens": anthropic.count_tokens,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), documents.rerank),
    **dict.fromkeys(("/score", "/v1/score"), documents.score),
    "/compatible-api/v1/reranks": documents.reranks,
    f"{_SERVICES}aigc/text-generation/generation": dashscope.text_generation,
    f"{_SERVICES}aigc/multimodal-generation/generation": dashscope.multimodal_generation,
    f"{_SERVICES}audio/tts/SpeechSynthesizer": dashscope_media.synthesized,
    f"{_SERVICES}embeddings/text-embedding/text-embedding": documents.text_embedding,
    f"{_SERVICES}embeddings/multimodal-embedding/multimodal-embedding": documents.multimodal_embedding,
    f"{_SERVICES}rerank/text-rerank/text-rerank": documents.text_rerank,
    **{_SERVICES + path: answer for path, answer in dashscope_tasks.SUBMITTED.items()},
}
_RESOURCES = re.compile(r"/v1/(models|files|uploads|batches|fine_tuning)(/.*)?")
_TASKS = re.compile(r"/api/v1/tasks(/.*)?")
_RESULTS = re.compile(r"/results/([0-9a-zA-Z-]+)-(\d{1,12})\.(png|wav|mp4)")
_TYPES = {"png": "image/png", "wav": "audio/wav", "mp4": "video/mp4"}


def answer_to(asked: Asked) -> Reply | None:
    """The answer, or None where nobody lives at that path."""
    if asked.method == "POST" and (answer := _POSTED.get(asked.path)) is not None:
        return answer(asked)
    if _RESOURCES.fullmatch(asked.path):
        return openai_resources.resources(asked)
    if _TASKS.fullmatch(asked.path):
        return dashscope_tasks.tasks(asked)
    if asked.method in ("GET", "HEAD") and (found := _RESULTS.fullmatch(asked.path)) is not None:
        return Reply(_TYPES[found[3]], found[1], [Fill(found[3], 0, int(found[2]))])
    return None
