"""The gateway's own errors as answers: each kind that a request can bring about, in the shape of each protocol.

Which code and type belong to a kind is the table of `tests.proxy.test_errors`; here the kinds are brought about.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from observability.board import Cell
from proxy.config.snapshot import Snapshot
from proxy.errors import KINDS
from tests.fakes.raw import Answer, RawClient, connect
from tests.fakes.scripted import Fin, ReadRequest, Scripted, Stall
from tests.fakes.worker import KEY, FakeWorker, document_of, running
from tests.proxy.test_errors import BODIES

OTHER_KEY = "sk-of-another-team"
PATHS = {
    # protocol → scenario, path
    "openai": ("text", "/v1/chat/completions"),
    "anthropic": ("text", "/v1/messages"),
    "dashscope": ("text", "/api/v1/services/aigc/text-generation/generation"),
    "vllm": ("rerank", "/v1/rerank"),
}
PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "dashscope": "dashscope", "vllm": "vllm"}
BY_MODEL = {"routing": {"by_model": [{"match": "m*", "service": "sim"}]}}


@dataclass(frozen=True)
class Cause:
    """What brings a kind about."""

    body: dict[str, Any] = field(default_factory=lambda: {"model": "m"})
    method: str = "POST"
    base: str = ""
    key: str = KEY
    length: int | None = None
    """Of the body as the head says it; None: its own."""
    model_api: dict[str, Any] = field(default_factory=dict)
    service: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    upstream: tuple[Any, ...] = (ReadRequest(), Stall())
    listens: bool = True
    meanwhile: Callable[[FakeWorker, Scripted], Awaitable[None]] | None = None
    """Done while the request waits."""


async def _drained(worker: FakeWorker, upstream: Scripted) -> None:
    await upstream.connection(0)
    worker.handler.stopping = True
    worker.server.cut_running()


STREAM = {"model": "m", "stream": True}
CAUSES = {
    "bad_request": Cause({"model": ""}, model_api=BY_MODEL, length=3),  # `{"m` is no document
    "client_timeout": Cause(length=1000, limits={"body_idle_timeout_ms": 100}),
    "no_route": Cause(base="/nowhere"),
    "method_not_allowed": Cause(method="PUT"),
    "unauthenticated": Cause(key="sk-nobody"),
    "forbidden": Cause(key=OTHER_KEY, model_api={"consumers": ["team"]}),
    "model_missing": Cause({}, model_api=BY_MODEL),
    "model_unknown": Cause({"model": "x"}, model_api=BY_MODEL),
    "body_too_large": Cause(model_api={"max_request_bytes": 5}),
    "overloaded": Cause(limits={"max_inflight_requests": 1}),
    "draining": Cause(meanwhile=_drained),
    "connect_failed": Cause(listens=False),
    "upstream_protocol": Cause(upstream=(ReadRequest(), Fin())),
    "upstream_timeout": Cause(service={"idle_timeout_ms": 100}),
    "first_packet_timeout": Cause(STREAM, model_api={"first_packet_timeout_ms": 100}),
    "first_token_timeout": Cause(STREAM, model_api={"first_token_timeout_ms": 100}),
    "internal": Cause(),
}
NOT_BROUGHT_ABOUT = {"head_too_large", "rate_limited", "no_service_available"}
"""The first has no path that is known; the other two are not used yet."""
CASES = [
    (kind, protocol)
    for kind in CAUSES
    for protocol in PATHS
    if not (kind.startswith("first_") and protocol == "vllm")  # it has no streams
]


def test_every_kind_is_brought_about() -> None:
    assert set(CAUSES) == set(KINDS) - NOT_BROUGHT_ABOUT


@pytest.mark.parametrize(("kind", "protocol"), CASES)
async def test_own_errors(kind: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = CAUSES[kind]
    scenario, path = PATHS[protocol]
    async with Scripted(*cause.upstream) as upstream:
        document = document_of(
            f"http://127.0.0.1:{upstream.port if cause.listens else 9}",
            provider=PROVIDERS[protocol],
            service=cause.service,
            limits=cause.limits,
            model_api={"scenario": scenario, "protocols": [protocol], **cause.model_api},
        )
        document["consumers"].append({"name": "other", "keys": [OTHER_KEY]})
        async with running(document) as worker, connect(worker.port) as client:
            if kind == "internal":  # a bug, in what is Python where the pipeline is compiled
                monkeypatch.setattr(Snapshot, "consumer_of", None)
            if kind == "overloaded":
                worker.row[Cell.ACTIVE] += 1
            sse = b"X-DashScope-SSE: enable\r\n" if cause.body.get("stream") else b""
            answer = await asked(client, cause, cause.base + path, sse, worker, upstream)
            fields = await worker.fields()
    check(answer, kind, protocol)
    assert (fields["error.type"], fields["sluiceway.outcome"]) == (kind, KINDS[kind].outcome)
    assert fields["sluiceway.error.origin"] == KINDS[kind].origin
    assert fields["sluiceway.request_id"] == answer.headers["x-sluiceway-request-id"]
    assert fields["http.response.status_code"] == answer.status


async def asked(
    client: RawClient, cause: Cause, path: str, lines: bytes, worker: FakeWorker, upstream: Scripted
) -> Answer:
    body = orjson.dumps(cause.body)
    length = len(body) if cause.length is None else cause.length
    client.send(
        b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n"
        % (cause.method.encode(), path.encode(), cause.key.encode())
        + b"Content-Length: %d\r\n%b\r\n%b" % (length, lines, body[:length])
    )
    async with contextlib.AsyncExitStack() as running_meanwhile:
        if cause.meanwhile is not None:
            task = asyncio.create_task(cause.meanwhile(worker, upstream))  # type: ignore[arg-type]
            running_meanwhile.push_async_callback(lambda: task)
        return await client.answer()


def check(answer: Answer, kind: str, protocol: str) -> None:
    """Status, headers and body are the kind's in this protocol."""
    openai_type, openai_code, anthropic_type, dashscope_code = BODIES[kind]
    assert answer.status == KINDS[kind].status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-sluiceway-error"] == kind
    assert ("retry-after" in answer.headers) == (KINDS[kind].retry_after_s is not None)
    assert answer.headers.get("allow") == ("POST" if kind == "method_not_allowed" else None)
    body = orjson.loads(answer.body)
    request_id = answer.headers["x-sluiceway-request-id"]
    if protocol == "anthropic":
        message = body["error"].pop("message")
        assert body == {"type": "error", "error": {"type": anthropic_type}, "request_id": request_id}
    elif protocol == "dashscope":
        message = body.pop("message")
        assert body == {"code": dashscope_code, "request_id": request_id}
    else:
        message = body["error"].pop("message")
        assert body == {"error": {"type": openai_type, "param": None, "code": openai_code}}
    assert message
