"""Images, sound, responses and resources of the OpenAI protocol: the official SDK understands what is simulated."""

import base64
import io
import json

import openai
import pytest
from aiohttp import ClientSession

from benchmarks.upstream.server import Upstream
from tests.benchmarks.test_upstream_faults import entry_of

PNG = ("a.png", b"\x89PNG" + bytes(1000), "image/png")
WAV = ("a.wav", b"RIFF" + bytes(60_000), "audio/wav")
SPOKEN = "You said: Who are you?"


@pytest.fixture
async def sdk(upstream: Upstream) -> openai.AsyncOpenAI:
    async with openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="sk-x", max_retries=0) as client:
        yield client


async def test_responses(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.responses.create(
        model="m", input="Who are you?", extra_query={"sim-reasoning-tokens": "2", "sim-cached-tokens": "1"}
    )
    assert answer.output_text == SPOKEN
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 8)
    assert answer.usage.output_tokens_details.reasoning_tokens == 2
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "Who are you?"}]}]
    async with sdk.responses.stream(model="m", input=asked) as stream:
        events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SPOKEN
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.usage.total_tokens == 9


async def test_an_error_inside_the_stream_of_a_response(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.responses.create(model="m", input="x", stream=True, extra_query={"sim-error-after": "1"})
    events = [event async for event in stream]
    assert (events[-1].type, events[-1].code) == ("error", "internal_error")


async def test_edits_and_variations(sdk: openai.AsyncOpenAI, upstream: Upstream) -> None:
    edited = await sdk.images.edit(model="gpt-image-1", image=[PNG, PNG], prompt="x", size="1024x1536")
    assert base64.b64decode(edited.data[0].b64_json).startswith(b"\x89PNG")
    assert (edited.size, edited.usage.input_tokens_details.image_tokens) == ("1024x1536", 200)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        varied = await sdk.images.create_variation(model="dall-e-2", image=PNG, n=2)
    assert len({image.url for image in varied.data}) == 2
    assert varied.data[0].url.startswith(upstream.url + "/results/")
    stream = await sdk.images.edit(model="gpt-image-1", image=PNG, prompt="x", stream=True, partial_images=2)
    kinds = [event.type async for event in stream]
    assert kinds == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]


async def test_results_are_served_as_the_script_says(upstream: Upstream, session: ClientSession) -> None:
    async def url(**controls: str) -> str:
        query = {f"sim-{name.replace('_', '-')}": value for name, value in controls.items()}
        body = {"model": "dall-e-3", "prompt": "x"}
        async with session.post(upstream.url + "/v1/images/generations", json=body, params=query) as answer:
            return (await answer.json())["data"][0]["url"]

    async with session.get(await url(result_bytes="90000")) as answer:
        raw = await answer.read()
    assert (len(raw), raw[:8], answer.content_type) == (90_000, b"\x89PNG\r\n\x1a\n", "image/png")
    async with session.get(await url(result="status=403;error-code=Expired")) as answer:
        assert answer.status == 403
    assert (await url(result_at="http://other.test:1")).startswith("http://other.test:1/results/")


async def test_the_base64_of_an_image_is_that_of_its_bytes(upstream: Upstream, session: ClientSession) -> None:
    body = {"model": "gpt-image-1", "prompt": "x"}
    path = "/v1/images/generations?sim-answer-bytes=200000"
    async with session.post(upstream.url + path, json=body) as answer:
        inline = (await answer.json())["data"][0]["b64_json"]
    async with session.get(f"{upstream.url}/results/a-150000.png") as answer:
        assert base64.b64decode(inline) == await answer.read()


async def test_speech(sdk: openai.AsyncOpenAI) -> None:
    script = {"sim-answer-bytes": "5000"}
    answer = await sdk.audio.speech.create(model="tts-1", voice="alloy", input="hello", extra_query=script)
    assert len(answer.content) == 5000
    request = sdk.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="hello", stream_format="sse", extra_query=script
    )
    async with request as response:
        events = [json.loads(line[6:]) async for line in response.iter_lines() if line]
    sound = b"".join(base64.b64decode(event.get("audio", "")) for event in events)
    assert sound == answer.content[: len(sound)]
    assert len(sound) == 4998
    assert events[-1]["usage"] == {"input_tokens": 2, "output_tokens": 6, "total_tokens": 8}


async def test_transcriptions(sdk: openai.AsyncOpenAI) -> None:
    said = "You said: a recording of 2 seconds"
    by_seconds = await sdk.audio.transcriptions.create(model="whisper-1", file=WAV)
    assert (by_seconds.text, by_seconds.usage.seconds) == (said, 2)
    by_tokens = await sdk.audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV)
    assert (by_tokens.usage.input_tokens, by_tokens.usage.input_token_details.audio_tokens) == (20, 20)
    verbose = await sdk.audio.transcriptions.create(model="whisper-1", file=WAV, response_format="verbose_json")
    assert (verbose.duration, verbose.segments[0].text) == (2, said)
    assert await sdk.audio.transcriptions.create(model="whisper-1", file=WAV, response_format="text") == said + "\n"
    stream = await sdk.audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV, stream=True)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == said
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert (await sdk.audio.translations.create(model="whisper-1", file=WAV)).text == said


async def test_files(sdk: openai.AsyncOpenAI, upstream: Upstream, session: ClientSession) -> None:
    content = b'{"custom_id": "1"}\n' * 50
    file = await sdk.files.create(
        file=("in.jsonl", io.BytesIO(content)), purpose="batch", extra_headers={"x-sim-id": "in"}
    )
    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
    assert [one["name"] for one in (await entry_of(session, upstream, "in"))["files"]] == ["file"]
    assert [one.id async for one in sdk.files.list()] == [file.id]
    assert (await sdk.files.content(file.id)).content == content
    assert (await sdk.files.retrieve(file.id)).filename == "in.jsonl"
    assert (await sdk.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(file.id)


async def test_uploads(sdk: openai.AsyncOpenAI) -> None:
    upload = await sdk.uploads.create(filename="a", purpose="batch", bytes=3, mime_type="text/plain")
    part = await sdk.uploads.parts.create(upload.id, data=b"abc")
    done = await sdk.uploads.complete(upload.id, part_ids=[part.id])
    assert (done.status, done.file.filename) == ("completed", "a")
    assert (await sdk.uploads.cancel(upload.id)).status == "cancelled"


async def test_batches_and_jobs(sdk: openai.AsyncOpenAI, upstream: Upstream, session: ClientSession) -> None:
    batch = await sdk.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h")
    assert (batch.status, batch.usage) == ("validating", None)
    ended = await sdk.batches.retrieve(batch.id, extra_headers={"x-sim-id": "ended"})
    assert (ended.status, ended.usage.total_tokens) == ("completed", 200)
    assert (await entry_of(session, upstream, "ended"))["output_tokens"] == 80
    assert (await sdk.batches.cancel(batch.id)).status == "cancelling"
    async with session.delete(f"{upstream.url}/v1/batches/{batch.id}") as answer:
        assert (await answer.json())["deleted"]
    job = await sdk.fine_tuning.jobs.create(model="m", training_file="f")
    assert [one.id async for one in sdk.fine_tuning.jobs.list()] == [job.id]
    assert [event.level async for event in sdk.fine_tuning.jobs.list_events(job.id)] == ["info"]
    assert (await sdk.fine_tuning.jobs.cancel(job.id)).status == "cancelled"


async def test_models_by_any_name(sdk: openai.AsyncOpenAI) -> None:
    assert (await sdk.models.retrieve("org/model")).id == "org/model"
    assert (await sdk.models.delete("ft:x")).deleted
