"""The control listener: probes, metrics, and errors in its own shape."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from observability.board import Board, Cell
from proxy.control import Host, application
from proxy.heartbeat import SILENT_AFTER_S, now_ms

Client = TestClient[web.Request, web.Application]
GENERATION = 4


@pytest.fixture
def board(tmp_path: Path) -> Board:
    (tmp_path / "metrics").mkdir()
    return Board.create(tmp_path / "board", 2)


@pytest.fixture
def start(tmp_path: Path, board: Board, aiohttp_client: Any) -> Callable[..., Awaitable[Client]]:
    async def client(token: str = "", **more: Any) -> Client:
        made: Client = await aiohttp_client(application(Host(tmp_path, board, GENERATION, token, **more)))
        return made

    return client


def serving(board: Board, *generations: int) -> None:
    for slot, generation in enumerate(generations):
        board.row(slot)[Cell.GENERATION] = generation


async def test_healthz_needs_nobody(start: Callable[..., Awaitable[Client]]) -> None:
    response = await (await start()).get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("generations", "status", "waiting_for"),
    [((4, 4), 200, []), ((4, 0), 503, [1]), ((3, 4), 503, [0]), ((0, 0), 503, [0, 1])],
)
async def test_readyz_is_about_every_worker(
    start: Callable[..., Awaitable[Client]],
    board: Board,
    generations: tuple[int, int],
    status: int,
    waiting_for: list[int],
) -> None:
    serving(board, *generations)
    response = await (await start()).get("/readyz")
    assert response.status == status
    assert await response.json() == {
        "status": "ready" if status == 200 else "not ready",
        "draining": False,
        "generation": GENERATION,
        "waiting_for": waiting_for,
        "silent": [],
        "workers": [{"slot": slot, "generation": generation} for slot, generation in enumerate(generations)],
        "refused": [],
    }


async def test_readyz_names_the_worker_whose_loop_stands_still(
    start: Callable[..., Awaitable[Client]], board: Board
) -> None:
    serving(board, 4, 4)
    client = await start()
    for age_s, silent in ((1.0, []), (SILENT_AFTER_S + 1, [1])):
        board.row(0)[Cell.HEARTBEAT] = now_ms()
        board.row(1)[Cell.HEARTBEAT] = now_ms() - int(age_s * 1000)
        response = await client.get("/readyz")
        assert response.status == (503 if silent else 200)
        assert (await response.json())["silent"] == silent


async def test_readyz_says_why_a_worker_is_behind(start: Callable[..., Awaitable[Client]], board: Board) -> None:
    serving(board, 4, 3)
    facts: dict[str, Any] = {"failures": {1: "services[0].tls.ca: gone"}, "token": "s3cret"}
    response = await (await start(**facts)).get("/readyz")
    assert (response.status, (await response.json())["failing"]) == (503, [{"slot": 1}])
    response = await (await start(**facts)).get("/readyz", headers={"authorization": "Bearer s3cret"})
    assert (await response.json())["failing"] == [{"slot": 1, "why": "services[0].tls.ca: gone"}]


async def test_readyz_fails_from_the_moment_a_drain_begins(
    start: Callable[..., Awaitable[Client]], board: Board, tmp_path: Path
) -> None:
    serving(board, 4, 4)
    client = await start()
    assert (await client.get("/readyz")).status == 200
    (tmp_path / "draining").touch()
    response = await client.get("/readyz")
    assert response.status == 503
    assert (await response.json())["draining"] is True
    assert (await client.get("/healthz")).status == 200


async def test_metrics_are_those_of_the_whole_host(start: Callable[..., Awaitable[Client]], board: Board) -> None:
    serving(board, 4, 3)
    board.row(0)[Cell.DROPPED_WORKER_LOST] = 2
    board.row(1)[Cell.DROPPED_WORKER_LOST] = 3
    response = await (await start()).get("/metrics")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = (await response.text()).splitlines()
    assert 'sluiceway_config_generation{worker="1"} 3.0' in lines
    assert 'sluiceway_records_dropped_total{reason="worker_lost"} 5.0' in lines


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic s3cret"}, 401),
        ({"authorization": "Bearer s3crét"}, 401),
        ({"authorization": "Bearer s3cret"}, 200),
        ({"authorization": "bearer  s3cret"}, 200),
    ],
)
async def test_a_token_guards_metrics(
    start: Callable[..., Awaitable[Client]], headers: dict[str, str], status: int
) -> None:
    client = await start(token="s3cret")
    response = await client.get("/metrics", headers=headers)
    assert response.status == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert "admin token" in (await response.json())["error"]["message"]


async def test_a_token_that_is_no_text_is_a_wrong_one(start: Callable[..., Awaitable[Client]]) -> None:
    client = await start(token="s3cret")
    assert client.port is not None
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_a_token_does_not_guard_the_probes(start: Callable[..., Awaitable[Client]], board: Board) -> None:
    serving(board, 4, 4)
    client = await start(token="s3cret")
    assert [(await client.get(path)).status for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"), [("GET", "/nothing", 404, None), ("POST", "/metrics", 405, "GET,HEAD")]
)
async def test_errors_are_json(
    start: Callable[..., Awaitable[Client]], method: str, path: str, status: int, allow: str | None
) -> None:
    response = await (await start()).request(method, path)
    assert response.status == status
    assert response.content_type == "application/json"
    assert (await response.json())["error"]["status"] == status
    assert response.headers.get("allow") == allow


async def test_openmetrics_is_for_scrapers_that_ask(start: Callable[..., Awaitable[Client]]) -> None:
    client = await start()
    plain = await client.get("/metrics")
    asked = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert plain.content_type == "text/plain"
    assert asked.content_type == "application/openmetrics-text"
    assert (await asked.text()).endswith("# EOF\n")
    assert "# EOF" not in await plain.text()


async def test_metrics_that_fail_are_a_500_and_the_probes_go_on(start: Callable[..., Awaitable[Client]]) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("disk gone: /secret/path")

    client = await start(metrics=broken)
    response = await client.get("/metrics")
    assert response.status == 500
    assert "secret" not in await response.text()
    assert (await client.get("/healthz")).status == 200
