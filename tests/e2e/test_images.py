"""OpenAI's SDK makes and edits images by DashScope services: it sees an OpenAI API, errors and large files included.

The gateway is a whole one. Files are hashed by the upstream as their base64 comes, and the worker's peak is VmHWM of
/proc (see `benchmarks.machine`).
"""

import base64
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from benchmarks import machine
from tests.fakes.dashscope_images import DashScopeImages, Picture, images_answer, refusal, task_answer
from tests.fakes.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-consumer"
MIB = 1 << 20
WORKER_BYTES_MAX = 150 * MIB
GROWTH_BYTES = 12 * MIB
"""By three files of 30 MiB: buffers that happened to be full, not files."""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50
URL = "https://dashscope-result.example.com/a.png?Expires=1"
SYNC = "/api/v1/services/aigc/multimodal-generation/generation"
EDIT = "/api/v1/services/aigc/image2image/image-synthesis"


@dataclass
class Bed:
    """A gateway with one worker before two DashScopes; `held` is the client of a Model API with a fallback."""

    gateway: Gateway
    one: DashScopeImages
    two: DashScopeImages
    client: AsyncOpenAI
    held: AsyncOpenAI
    records: int = 0

    @property
    def worker(self) -> int:
        """The pid of the worker."""
        [pid] = self.gateway.pids("proxy.worker")
        return pid

    async def record(self) -> dict[str, Any]:
        """That of the next request."""
        self.records += 1
        return (await self.gateway.records(self.records))[-1]


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Bed]:
    async with DashScopeImages() as one, DashScopeImages() as two:
        services = [
            {"name": name, "provider": "dashscope", "base_url": upstream.url, "api_keys": ["sk-provider"]}
            for name, upstream in (("one", one), ("two", two))
        ]
        api = {"scenario": "image", "protocols": ["openai"], "routing": {"single": {"service": "one"}}}
        document = {
            "services": services,
            "consumers": [{"name": "team", "keys": [KEY]}],
            "spool_dir": str(folder / "spool"),
            "model_apis": [
                {"name": "images", **api},
                {"name": "held", **api, "base_path": "/held", "fallback": [{"service": "two"}]},
            ],
        }
        async with (
            Gateway.serving(document, folder) as gateway,
            AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
            AsyncOpenAI(base_url=f"{gateway.url}/held/v1", api_key=KEY, max_retries=0) as held,
        ):
            yield Bed(gateway, one, two, client, held)
            assert not gateway.errors
            assert not gateway.complaints()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with serving(tmp_path_factory.mktemp("images")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_said(bed: Bed) -> None:
    for upstream in (bed.one, bed.two):
        upstream.requests.clear()
        upstream.headers = {}


async def test_generate(bed: Bed) -> None:
    bed.one.answers = [images_answer(URL, input_tokens=9, output_tokens=4, image_count=1)]
    made = await bed.client.images.generate(
        model="qwen-image", prompt="a lock", size="1024x1024", quality="high", extra_body={"prompt_extend": False}
    )
    assert [image.url for image in made.data or []] == [URL]
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.total_tokens) == (9, 13)
    [request] = bed.one.requests
    assert (request.path, request.document["parameters"]) == (
        SYNC,
        {"size": "1024*1024", "prompt_extend": False, "n": 1},
    )
    record = await bed.record()
    assert (record["sluiceway.outcome"], record["sluiceway.usage.images"]) == ("ok", 1)
    assert record["gen_ai.usage.input_tokens"] == 9


async def test_generate_by_a_task(bed: Bed) -> None:
    bed.one.answers = [task_answer("t-1", "PENDING")]
    bed.one.tasks["t-1"] = [task_answer("t-1", "RUNNING"), task_answer("t-1", "SUCCEEDED", {"url": URL}, {"url": URL})]
    made = await bed.client.images.generate(model="wan2.2-t2i-flash", prompt="a lock", n=2)
    assert [image.url for image in made.data or []] == [URL, URL]
    assert made.usage is None
    record = await bed.record()
    assert (record["sluiceway.task_id"], record["sluiceway.usage.images"]) == ("t-1", 2)


async def test_generate_into_the_answer(bed: Bed) -> None:
    bed.one.stored = {"a": PNG, "b": random.Random(1).randbytes(3 * MIB)}
    bed.one.answers = [images_answer(f"{bed.one.url}/stored/a", f"{bed.one.url}/stored/b")]
    made = await bed.client.images.generate(model="qwen-image", prompt="p", n=2, response_format="b64_json")
    assert [base64.b64decode(image.b64_json or "") for image in made.data or []] == list(bed.one.stored.values())
    await bed.record()


async def test_generate_as_a_stream(bed: Bed) -> None:
    bed.one.stored = {"a": PNG}
    bed.one.answers = [task_answer("t-4", "PENDING")]
    bed.one.tasks["t-4"] = [task_answer("t-4", "SUCCEEDED", {"url": f"{bed.one.url}/stored/a"})]
    stream = await bed.client.images.generate(model="wan2.2-t2i-flash", prompt="p", stream=True, partial_images=2)
    [event] = [event async for event in stream]
    assert event.type == "image_generation.completed"
    assert base64.b64decode(event.b64_json) == PNG
    assert (await bed.record())["gen_ai.request.stream"] is True
    bed.one.tasks["t-4"] = [task_answer("t-4", "FAILED", code="InternalError", message="It went wrong.")]
    stream = await bed.client.images.generate(model="wan2.2-t2i-flash", prompt="p", stream=True)
    with pytest.raises(openai.APIError, match="It went wrong"):
        [event async for event in stream]
    assert (await bed.record())["error.type"] == "InternalError"


async def test_edit_several_files_and_a_mask(bed: Bed) -> None:
    bed.one.answers = [images_answer(URL)]
    made = await bed.client.images.edit(
        model="qwen-image-edit", prompt="open it", image=[("a.png", PNG), ("b", b"\xff\xd8\xff" + PNG)], size="auto"
    )
    assert [image.url for image in made.data or []] == [URL]
    await bed.record()
    bed.one.answers = [task_answer("t-2", "PENDING")]
    bed.one.tasks["t-2"] = [task_answer("t-2", "SUCCEEDED", {"url": URL})]
    await bed.client.images.edit(model="wanx2.1-imageedit", prompt="open it", image=PNG, mask=("m.png", PNG[:99]))
    await bed.record()
    several, masked = bed.one.requests
    assert [picture.kind for picture in several.pictures] == ["image/png", "image/jpeg"]
    assert (several.path, several.document["parameters"]) == (SYNC, {"n": 1})
    assert masked.path == EDIT
    assert {key: masked.pictures[int(value[5:])].size for key, value in masked.document["input"].items()
            if value.startswith("data:")} == {"base_image_url": len(PNG), "mask_image_url": 99}  # fmt: skip


def picture_of(content: bytes) -> Picture:
    return Picture("image/png", len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("held", [False, True], ids=["once", "held"])
async def test_files_of_90_mib_in_constant_memory(bed: Bed, held: bool) -> None:
    """`held`: on disk, for the second target, which gets them when the first has refused."""
    client, target = (bed.held, bed.two) if held else (bed.client, bed.one)
    bed.one.answers = [refusal(503, "ServiceUnavailable")] if held else [images_answer(URL)]
    bed.two.answers = [images_answer(URL)]
    small = [b"\x89PNG\r\n\x1a\n" + random.Random(number).randbytes(MIB) for number in range(3)]
    await client.images.edit(model="qwen-image-edit", prompt="p", image=small)
    await bed.record()
    before = machine.peak_memory_bytes(bed.worker)
    target.requests.clear()
    machine.reset_peak_memory(bed.worker)
    files = [b"\x89PNG\r\n\x1a\n" + random.Random(number).randbytes(30 * MIB) for number in range(3)]
    await client.images.edit(model="qwen-image-edit", prompt="p", image=files)
    peak = machine.peak_memory_bytes(bed.worker)
    assert peak < WORKER_BYTES_MAX
    assert peak - before < GROWTH_BYTES
    [request] = target.requests
    assert request.pictures == [picture_of(file) for file in files]
    record = await bed.record()
    assert record["sluiceway.request.bytes"] > 90 * MIB
    assert (record["sluiceway.outcome"], record["sluiceway.attempts"]) == ("ok", 2 if held else 1)


async def test_an_image_of_40_mib_in_constant_memory(bed: Bed) -> None:
    bed.one.stored = {"large": random.Random(2).randbytes(40 * MIB)}
    bed.one.answers = [images_answer(f"{bed.one.url}/stored/large")]
    machine.reset_peak_memory(bed.worker)
    before = machine.peak_memory_bytes(bed.worker)
    made = await bed.client.images.generate(model="qwen-image", prompt="p", response_format="b64_json")
    assert machine.peak_memory_bytes(bed.worker) - before < GROWTH_BYTES
    assert base64.b64decode((made.data or [])[0].b64_json or "") == bed.one.stored["large"]
    await bed.record()


FAILURES: list[tuple[tuple[int, dict[str, Any]], type[openai.APIStatusError]]] = [
    (refusal(400, "InvalidParameter"), openai.BadRequestError),
    (refusal(401, "InvalidApiKey"), openai.AuthenticationError),
    (refusal(403, "AccessDenied"), openai.PermissionDeniedError),
    (refusal(404, "ModelNotFound"), openai.NotFoundError),
    (refusal(429, "Throttling.RateQuota"), openai.RateLimitError),
    (refusal(500, "InternalError"), openai.InternalServerError),
    (refusal(200, "DataInspectionFailed"), openai.BadRequestError),
]


@pytest.mark.parametrize(("said", "raised"), FAILURES)
async def test_what_the_sdk_raises(
    bed: Bed, said: tuple[int, dict[str, Any]], raised: type[openai.APIStatusError]
) -> None:
    bed.one.answers = [said]
    with pytest.raises(raised) as caught:
        await bed.client.images.generate(model="qwen-image", prompt="p")
    assert caught.value.code == said[1]["code"]
    assert caught.value.request_id == said[1]["request_id"]
    assert (await bed.record())["error.type"] == said[1]["code"]


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("DataInspectionFailed", openai.BadRequestError),
        ("Throttling", openai.RateLimitError),
        ("InternalError.Timeout", openai.InternalServerError),
    ],
)
async def test_what_the_sdk_raises_for_a_task(bed: Bed, code: str, raised: type[openai.APIStatusError]) -> None:
    bed.one.answers = [task_answer("t-3", "PENDING")]
    bed.one.tasks["t-3"] = [task_answer("t-3", "FAILED", code=code, message="It went wrong.")]
    with pytest.raises(raised, match="It went wrong") as caught:
        await bed.client.images.generate(model="wanx-v1", prompt="p")
    assert caught.value.code == code
    await bed.record()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_variations_are_refused(bed: Bed) -> None:
    with pytest.raises(openai.BadRequestError, match="no variations"):
        await bed.client.images.create_variation(model="dall-e-2", image=PNG)
    assert (await bed.record())["sluiceway.outcome"] == "rejected"
