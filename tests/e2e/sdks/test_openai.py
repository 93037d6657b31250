"""The openai SDK, unchanged, with what `test_sdks` does not ask of it: all its other resources.

A case is a chain of calls, each of which may use what those before it gave. It runs straight to the simulated upstream
and through the gateway; both give the same, and each call through the gateway leaves a record that says what it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.sdks.bed import KEY, WAYS, Bed, fields_of, in_thread, nameless

pytestmark = pytest.mark.asyncio(loop_scope="package")

Past = list[Any]
Arguments = Callable[[Past], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Call:
    """One call: `method` is a dotted name of the client, `expected` fields of its record."""

    method: str
    arguments: Arguments
    expected: dict[str, Any] = field(default_factory=dict)


def call(method: str, *arguments: Any, expected: dict[str, Any] | None = None, **options: Any) -> Call:
    """Arguments that are functions are given what the calls before gave."""

    def made(past: Past) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values = tuple(value(past) if callable(value) else value for value in arguments)
        return values, {name: value(past) if callable(value) else value for name, value in options.items()}

    return Call(method, made, expected or {})


def of_first(name: str = "id") -> Callable[[Past], Any]:
    return lambda past: past[0][name]


def bound(client: Any, method: str) -> Callable[..., Any]:
    for name in method.split("."):
        client = getattr(client, name)
    return client  # type: ignore[no-any-return]


def plain(answer: Any) -> Any:
    """As data: a model, or bytes."""
    return answer.model_dump() if hasattr(answer, "model_dump") else getattr(answer, "content", answer)


def run(base_url: str, calls: Sequence[Call]) -> Past:
    past: Past = []
    with OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
        for one in calls:
            arguments, options = one.arguments(past)
            answer = bound(client, one.method)(*arguments, **options)
            past.append([plain(event) for event in answer] if options.get("stream") else plain(answer))
    return past


async def run_async(base_url: str, calls: Sequence[Call]) -> Past:
    past: Past = []
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
        for one in calls:
            arguments, options = one.arguments(past)
            answer = await bound(client, one.method)(*arguments, **options)
            past.append([plain(event) async for event in answer] if options.get("stream") else plain(answer))
    return past


async def ran(base_url: str, calls: Sequence[Call], way: str) -> Past:
    return await run_async(base_url, calls) if way == "async" else await in_thread(lambda: run(base_url, calls))


# -- what is asked ---------------------------------------------------------------------------------------------------

QUESTION = "What lifts a boat over a hill? Ein Schleusentor, 水閘, and patience."
PICTURE = ("lock.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200, "image/png")
SOUND = ("lock.wav", b"RIFF" + bytes(range(256)) * 400, "audio/wav")
LINES = (
    "asked.jsonl",
    b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n',
    "application/jsonl",
)
USED = {"sluiceway.usage.source": "upstream"}


def images(number: int, operation: str) -> dict[str, Any]:
    made = {"gen_ai.output.type": "image", "gen_ai.operation.name": "generate_content"}
    return {**made, "sluiceway.operation": operation, "sluiceway.usage.images": number}


def managed(name: str, method: str = "GET") -> dict[str, Any]:
    called = f"manage_{name}"
    return {"sluiceway.operation": name, "gen_ai.operation.name": called, "http.request.method": method}


RESPONSE = {
    "sluiceway.operation": "responses",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5",
    **USED,
}
SPEECH = {
    "sluiceway.operation": "audio.speech",
    "gen_ai.operation.name": "generate_content",
    "gen_ai.output.type": "speech",
}
HEARD = {"gen_ai.operation.name": "generate_content", "gen_ai.output.type": "text"}
WRITTEN = {**HEARD, "sluiceway.operation": "audio.transcriptions", "gen_ai.request.model": "whisper-1"}
TRANSLATED = {**HEARD, "sluiceway.operation": "audio.translations", "gen_ai.request.model": "whisper-1"}
FILES, UPLOADS, BATCHES, TUNING = (
    managed("files"),
    managed("uploads", "POST"),
    managed("batches"),
    managed("fine_tuning"),
)
CHANGED = {"http.request.method": "POST"}
NOT_YET = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
"""A batch that has not ended may still use more."""

CASES: dict[str, tuple[str, list[Call]]] = {
    "responses": (
        "gpt",
        [call("responses.create", model="gpt-5", input=QUESTION, instructions="Be brief.", expected=RESPONSE)],
    ),
    "responses, streamed": (
        "gpt",
        [
            call(
                "responses.create",
                model="gpt-5",
                input=[{"role": "user", "content": QUESTION}],
                stream=True,
                expected={**RESPONSE, "gen_ai.request.stream": True},
            )
        ],
    ),
    "images, an edit": (
        "gpt-pictures",
        [
            call(
                "images.edit",
                model="gpt-image-1",
                image=PICTURE,
                prompt=QUESTION,
                size="1024x1024",
                expected={**images(1, "images.edits"), **USED, "gen_ai.request.model": "gpt-image-1"},
            )
        ],
    ),
    "images, an edit of two with a mask": (
        "gpt-pictures",
        [
            call(
                "images.edit",
                model="dall-e-2",
                image=[PICTURE, PICTURE],
                mask=PICTURE,
                prompt=QUESTION,
                n=2,
                expected={**images(2, "images.edits"), "gen_ai.request.model": "dall-e-2"},
            )
        ],
    ),
    "images, an edit, streamed": (
        "gpt-pictures",
        [
            call(
                "images.edit",
                model="gpt-image-1",
                image=PICTURE,
                prompt=QUESTION,
                stream=True,
                partial_images=1,
                expected={**images(1, "images.edits"), **USED, "gen_ai.request.stream": True},
            )
        ],
    ),
    "images, variations": (
        "gpt-pictures",
        [
            call(
                "images.create_variation",
                model="dall-e-2",
                image=PICTURE,
                n=2,
                expected={**images(2, "images.variations"), "gen_ai.request.model": "dall-e-2"},
            )
        ],
    ),
    "speech": (
        "gpt-voices",
        [call("audio.speech.create", model="tts-1", voice="alloy", input=QUESTION, expected=SPEECH)],
    ),
    "transcriptions": (
        "gpt-voices",
        [
            call("audio.transcriptions.create", model="whisper-1", file=SOUND, expected=WRITTEN),
            call(
                "audio.transcriptions.create",
                model="whisper-1",
                file=SOUND,
                response_format="verbose_json",
                expected=WRITTEN,
            ),
            call(
                "audio.transcriptions.create",
                model="gpt-4o-transcribe",
                file=SOUND,
                stream=True,
                expected={"sluiceway.operation": "audio.transcriptions", "gen_ai.request.stream": True, **USED},
            ),
        ],
    ),
    "translations": (
        "gpt-voices",
        [call("audio.translations.create", model="whisper-1", file=SOUND, expected=TRANSLATED)],
    ),
    "models": (
        "others",
        [
            call("models.list", expected=managed("models")),
            call("models.retrieve", "gpt-5", expected=managed("models")),
            call("models.delete", "ft:gpt-5:mine", expected=managed("models", "DELETE")),
        ],
    ),
    "files": (
        "others",
        [
            call("files.create", file=LINES, purpose="batch", expected={**FILES, **CHANGED}),
            call("files.list", purpose="batch", expected=FILES),
            call("files.retrieve", of_first(), expected=FILES),
            call("files.content", of_first(), expected=FILES),
            call("files.delete", of_first(), expected={**FILES, "http.request.method": "DELETE"}),
        ],
    ),
    "uploads": (
        "others",
        [
            call(
                "uploads.create",
                bytes=3000,
                filename="asked.jsonl",
                mime_type="application/jsonl",
                purpose="batch",
                expected=UPLOADS,
            ),
            call("uploads.parts.create", of_first(), data=b"x" * 3000, expected=UPLOADS),
            call("uploads.complete", of_first(), part_ids=lambda past: [past[1]["id"]], expected=UPLOADS),
            call("uploads.create", bytes=7, filename="b", mime_type="text/plain", purpose="batch", expected=UPLOADS),
            call("uploads.cancel", lambda past: past[3]["id"], expected=UPLOADS),
        ],
    ),
    "batches": (
        "others",
        [
            call(
                "batches.create",
                input_file_id="file-1",
                endpoint="/v1/chat/completions",
                completion_window="24h",
                expected={**BATCHES, **CHANGED},
            ),
            call("batches.retrieve", of_first(), expected=BATCHES),
            call("batches.list", limit=5, expected=BATCHES),
            call("batches.cancel", of_first(), expected={**BATCHES, **CHANGED, **NOT_YET}),
        ],
    ),
    "fine-tuning": (
        "others",
        [
            call("fine_tuning.jobs.create", model="gpt-5-mini", training_file="file-1", expected={**TUNING, **CHANGED}),
            call("fine_tuning.jobs.retrieve", of_first(), expected=TUNING),
            call("fine_tuning.jobs.list", expected=TUNING),
            call("fine_tuning.jobs.list_events", of_first(), expected=TUNING),
            call("fine_tuning.jobs.checkpoints.list", of_first(), expected=TUNING),
            call("fine_tuning.jobs.pause", of_first(), expected={**TUNING, **CHANGED}),
            call("fine_tuning.jobs.resume", of_first(), expected={**TUNING, **CHANGED}),
            call("fine_tuning.jobs.cancel", of_first(), expected={**TUNING, **CHANGED}),
        ],
    ),
}
ALWAYS = {
    "gen_ai.provider.name": "openai",
    "http.response.status_code": 200,
    "sluiceway.protocol": "openai",
    "sluiceway.service": "openai",
    "sluiceway.consumer": "team",
    "sluiceway.attempts": 1,
    "sluiceway.outcome": "ok",
    "error.type": None,
}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK's own word on two of its calls
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("base", "calls"), CASES.values(), ids=CASES)
async def test_openai(bed: Bed, base: str, calls: list[Call], way: str) -> None:
    direct = await ran(f"{bed.upstream.url}/v1", calls, way)
    results, records = await bed.records(ran(f"{bed.url(base)}/v1", calls, way), len(calls))
    assert nameless(results) == nameless(direct)
    for one, result, record in zip(calls, results, records, strict=True):
        expected = {**ALWAYS, "sluiceway.model_api": base, **used(result), **one.expected}
        assert fields_of(record, expected) == expected, one.method


def used(result: Any) -> dict[str, Any]:
    """The tokens or seconds that an answer, or the last event of a stream, tells its caller, as fields of a record."""
    answer = result[-1] if isinstance(result, list) else result
    if not isinstance(answer, dict):
        return {}
    usage = answer.get("usage") or (answer.get("response") or {}).get("usage")
    if not usage:
        return {}
    if usage.get("type") == "duration":
        return {"sluiceway.usage.seconds": usage["seconds"]}
    tokens = {"gen_ai.usage.input_tokens": usage["input_tokens"], "gen_ai.usage.output_tokens": usage["output_tokens"]}
    return tokens if any(tokens.values()) else {}


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_record_says_of_its_model_api(bed: Bed, way: str) -> None:
    """Its group and its labels; the metrics have them too."""
    calls = [call("models.list")]
    _, (record,) = await bed.records(ran(f"{bed.url('others')}/v1", calls, way))
    assert record["sluiceway.resource_group"] == "group-others"
    assert record["sluiceway.label.made-for"] == "others"
    described = 'label_made_for="others",model_api="others",resource_group="group-others",scenario="others"'
    assert (await bed.gateway.metrics())[f"sluiceway_model_api_info{{{described}}}"] == 1


@pytest.mark.parametrize("way", WAYS)
async def test_speech_that_is_read_as_it_comes(bed: Bed, way: str) -> None:
    options: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": QUESTION}

    async def spoken(base_url: str) -> bytes:
        if way == "async":
            async with AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
                async with client.audio.speech.with_streaming_response.create(**options) as answer:
                    return b"".join([piece async for piece in answer.iter_bytes()])

        def run() -> bytes:
            with OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
                with client.audio.speech.with_streaming_response.create(**options) as answer:
                    return b"".join(answer.iter_bytes())

        return await in_thread(run)  # type: ignore[no-any-return]

    direct = await spoken(f"{bed.upstream.url}/v1")
    sound, (record,) = await bed.records(spoken(f"{bed.url('gpt-voices')}/v1"))
    assert sound == direct
    expected = {**SPEECH, "gen_ai.request.model": "tts-1", "sluiceway.response.bytes": len(sound)}
    assert fields_of(record, expected) == expected
