"""One table: every route of every Model API, through the gateway to the simulated upstream, and none beside them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_asyncio
from yarl import URL

from tests.e2e import every_route
from tests.e2e.calls import CALLS, ROOTS, Call
from tests.e2e.every_route import KEY, MODEL_APIS, PROVIDERS, Bed, calls_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

BELOW_PLACES = {("dashscope", "openai"): "/compatible-mode", ("dashscope", "anthropic"): "/apps/anthropic"}
"""Where a provider serves a protocol that is not its own, if it is not where the protocol says."""
BARE_KEY = {("dashscope", "anthropic"), ("anthropic", "anthropic")}
"""Provider and protocol whose key goes into x-api-key; all others want a bearer token."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with every_route.running(tmp_path_factory.mktemp("routes")) as bed:
        yield bed


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("model_api", "call"),
    [pytest.param(name, call, id=f"{name} {call.name}") for name in MODEL_APIS for call in calls_of(name)],
)
async def test_a_route(bed: Bed, model_api: str, call: Call, slash: str) -> None:
    scenario, service, _ = MODEL_APIS[model_api]
    provider = PROVIDERS[service]
    spoken = provider, call.protocol
    exchange = await bed.ask(call, model_api, suffix=slash)
    assert exchange.status == call.status
    assert exchange.entry is not None
    assert (exchange.entry["method"], exchange.entry["path"]) == (
        call.method,
        BELOW_PLACES.get(spoken, "") + exchange.path + slash,
    )
    keys = {name: value for name, value in exchange.received.items() if name in ("authorization", "x-api-key")}
    assert keys == ({"x-api-key": f"sk-{service}"} if spoken in BARE_KEY else {"authorization": f"Bearer sk-{service}"})
    expected: dict[str, Any] = {
        "http.route": f"/{model_api}{call.template}",
        "http.request.method": call.method,
        "http.response.status_code": call.status,
        "url.path": f"/{model_api}{exchange.path}{slash}",
        "url.scheme": "http",
        "gen_ai.operation.name": call.gen_ai_operation,
        "gen_ai.provider.name": provider,
        "sluiceway.model_api": model_api,
        "sluiceway.resource_group": "table",
        "sluiceway.scenario": scenario,
        "sluiceway.protocol": call.protocol,
        "sluiceway.operation": call.operation,
        "sluiceway.consumer": "team",
        "sluiceway.service": service,
        "sluiceway.outcome": "ok" if call.status == 200 else "upstream_error",
    }
    if call.output_type is not None:
        expected["gen_ai.output.type"] = call.output_type
    if scenario != "others" and call.body is not None:
        expected["gen_ai.request.model"] = call.body["model"]
    assert exchange.record | expected == exchange.record
    assert exchange.recorded == exchange.said
    assert {name for name in every_route.USAGE if exchange.entry[name] is not None} >= set(call.usage)


@pytest.mark.parametrize("model_api", MODEL_APIS)
async def test_no_route_beside_those_of_its_scenario_and_protocols(bed: Bed, model_api: str) -> None:
    own = {call.template for call in calls_of(model_api)}
    for path in sorted({call.template for call in CALLS} - own):
        answer = await _asked(bed, "POST", f"/{model_api}{path.replace('*', 'x')}")
        assert (path, *answer) == (path, 404, "no_route")


@pytest.mark.parametrize("model_api", MODEL_APIS)
async def test_no_method_beside_those_of_its_operations(bed: Bed, model_api: str) -> None:
    for path in sorted({call.path for call in calls_of(model_api) if not call.path.startswith(ROOTS)}):
        for method in METHODS:
            if method != "POST":
                answer = await _asked(bed, method, f"/{model_api}{path}")
                assert (path, method, *answer) == (path, method, 405, "method_not_allowed")


async def _asked(bed: Bed, method: str, path: str) -> tuple[int, str]:
    """Status, and the gateway's word for what is wrong."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with bed.session.request(method, URL(bed.gateway.url + path, encoded=True), headers=headers) as response:
        return response.status, response.headers.get("x-sluiceway-error", "")


@pytest.mark.parametrize(
    ("model_api", "path"),
    [
        ("others-qwen", "/v1/models/a%2Fb"),
        ("others-gpt", "/v1/models/%E6%B0%B4%20x"),
        ("others-gpt", "/v1/models/a//b;v=1"),
        ("others-gpt", "/v1/files/a%2fb/content?limit=%2F"),
    ],
)
async def test_raw_paths_arrive_as_they_were_written(bed: Bed, model_api: str, path: str) -> None:
    call = Call("others", "openai", "models", "", path, method="GET")
    exchange = await bed.ask(call, model_api)
    assert exchange.entry is not None
    assert exchange.entry["path"] == BELOW_PLACES.get((PROVIDERS[MODEL_APIS[model_api][1]], "openai"), "") + path


async def test_a_base_path_is_kept_where_that_is_wanted(bed: Bed) -> None:
    call = next(call for call in CALLS if call.operation == "chat.completions")
    exchange = await bed.ask(call, "compatible-mode")
    assert (exchange.status, exchange.entry and exchange.entry["path"]) == (200, "/compatible-mode" + call.path)
    assert exchange.record["sluiceway.model_api"] == "kept"


ALIYUN = Call(
    "image",
    "dashscope",
    "multimodal-generation",
    "generate_content",
    "/aliyun/v1/images/generations",
    {
        "model": "qwen-image-2.0-pro",
        "input": {"messages": [{"role": "user", "content": [{"text": "A white mechanical cat."}]}]},
        "parameters": {"size": "2048*2048", "n": 1, "prompt_extend": True, "watermark": False},
    },
)


@pytest.mark.parametrize("model_api", ["image-qwen", "pictures"])
async def test_the_image_call_of_platforms(bed: Bed, model_api: str) -> None:
    exchange = await bed.ask(ALIYUN, model_api)
    assert exchange.status == 200
    assert exchange.entry is not None
    assert exchange.entry["path"] == "/api/v1/services/aigc/multimodal-generation/generation"
    said = orjson.loads(exchange.body)
    assert said["usage"] == {"image_count": 1, "width": 2048, "height": 2048}
    assert exchange.recorded == exchange.said
    assert exchange.record["sluiceway.operation"] == "multimodal-generation"


@pytest.mark.parametrize("model_api", ["image-gpt", "pictures"])
async def test_the_image_call_of_platforms_is_for_dashscope_alone(bed: Bed, model_api: str) -> None:
    other = replace(ALIYUN, body={**(ALIYUN.body or {}), "model": "gpt-image-1"})
    exchange = await bed.ask(other, model_api)
    assert exchange.entry is None
    assert (exchange.status, orjson.loads(exchange.body)) == (400, {
        "error": {
            "message": "only aliyun channel is supported on /aliyun/v1/images/generations",
            "type": "invalid_request_error",
            "code": "invalid_request",
        }
    })  # fmt: skip


@pytest.mark.parametrize("operation", ["images.generations", "images.edits"])
@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("qwen-image-plus", {"images.generations": "multimodal-generation/generation",
                             "images.edits": "multimodal-generation/generation"}),
        ("wan2.5-i2i-preview", {"images.generations": "text2image/image-synthesis",
                                "images.edits": "image2image/image-synthesis"}),
    ],
)  # fmt: skip
async def test_an_openai_image_request_to_a_dashscope_service(
    bed: Bed, operation: str, model: str, path: dict[str, str]
) -> None:
    call = next(call for call in CALLS if call.operation == operation)
    exchange = await bed.ask(replace(call, body={"model": model, "prompt": "a cat", "n": 1}), "translated")
    assert exchange.status == 200
    assert exchange.entry is not None
    assert exchange.entry["path"] == f"/api/v1/services/aigc/{path[operation]}"
    assert exchange.received["authorization"] == "Bearer sk-qwen"
    [image] = orjson.loads(exchange.body)["data"]
    assert image["url"].startswith("http://")
    expected = {
        "http.route": f"/translated{call.template}",
        "sluiceway.protocol": "openai",
        "sluiceway.operation": operation,
        "gen_ai.operation.name": call.gen_ai_operation,
        "gen_ai.provider.name": "dashscope",
        "gen_ai.request.model": model,
        "sluiceway.outcome": "ok",
        "sluiceway.usage.images": 1,
    }
    assert exchange.record | expected == exchange.record
