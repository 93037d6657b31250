"""Each smuggling shape, raw, through the whole gateway in front of a real nginx: what the client got, what nginx saw.

nginx reads bodies (it hands them to a server of its own behind it) and logs what it took for requests. The gateway and
nginx are started once for all shapes; a marked request straight to nginx, behind each shape, says which of its log
lines belong to it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.e2e.smuggling_shapes import FOLLOWER, SHAPES, Shape
from tests.fakes.gateway import Gateway
from tests.fakes.programs import Nginx, nginx
from tests.fakes.raw import Answer, RawClient, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOG = (
    '{"line":"$request","host":"$http_host","length":"$http_content_length","coding":"$http_transfer_encoding",'
    '"te":"$http_te","connection":"$http_connection","upgrade":"$http_upgrade",'
    '"leaked":"$http_x_leaked$http_x_first","status":"$status","behind":"$upstream_status","body":"$request_body"}'
)


@dataclass
class Bed:
    """A gateway in front of nginx."""

    gateway: Gateway
    nginx: Nginx
    marks: "itertools.count[int]"
    looked_at: int = 0

    async def running(self) -> bool:
        """A request is running in nginx, besides the one that asks."""
        async with connect(self.nginx.port) as client:
            client.send(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"Reading: 0 Writing: 1 " not in (await client.rest())[0]

    async def seen(self) -> list[dict[str, Any]]:
        """What nginx took for requests since the last call."""
        mark = f"GET /mark/{next(self.marks)} HTTP/1.1"
        async with connect(self.nginx.port) as client:
            client.send(f"{mark}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            await client.rest()
        async with asyncio.timeout(20):
            while True:
                lines = [orjson.loads(line) for line in self.nginx.access_log[self.looked_at :]]
                at = next((at for at, line in enumerate(lines) if line["line"] == mark), None)
                if at is not None:
                    self.looked_at += at + 1
                    return lines[:at]
                await asyncio.sleep(0.005)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("smuggling")
    (folder / "nginx").mkdir()
    behind = f"server {{ listen unix:{folder}/behind.sock; access_log off; return 200 '{{}}'; }}"
    status = "location = /status { stub_status; access_log off; }"
    server = f"client_body_buffer_size 64k; {status} location / {{ proxy_pass http://unix:{folder}/behind.sock; }}"
    async with nginx(folder / "nginx", server, log_format=LOG, http=f"default_type application/json; {behind}") as real:
        document = {
            "services": [{"name": "nginx", "provider": "vllm", "base_url": f"http://127.0.0.1:{real.port}"}],
            "model_apis": [
                {
                    "name": name,
                    "scenario": "text",
                    "protocols": ["openai"],
                    "auth": "open",
                    "base_path": path,
                    "strip_base_path": False,
                    "routing": {"single": {"service": "nginx"}},
                }
                for name, path in (("chat", "/"), ("smuggled", "/smuggled"))
            ],
        }
        async with Gateway.serving(document, folder) as gateway:
            yield Bed(gateway, real, itertools.count())
            assert not gateway.complaints()


async def first_answer(client: RawClient) -> Answer:
    """The final answer."""
    while (answer := await client.answer()).status == 100:
        pass
    return answer


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_shape(bed: Bed, shape: Shape) -> None:
    async with connect(bed.gateway.port) as client:
        client.send(shape.data + FOLLOWER)
        answer = await first_answer(client)
        kept = answer.headers.get("connection") != "close"
        if kept:
            assert (await client.answer()).status == 200
        rest = None if kept else await client.rest()
    seen = await bed.seen()
    assert (answer.status, answer.headers.get("x-sluiceway-error")) == (shape.status, shape.error)
    assert (kept, rest) == (shape.kept, None if shape.kept else (b"", "fin"))
    if kept:
        follower = seen.pop()
        assert follower["line"] == "POST /smuggled/v1/chat/completions HTTP/1.1"
        assert (follower["body"], follower["leaked"]) == ("[]", "")
    if shape.seen is None:
        assert not seen
        return
    (one,) = seen
    expected = shape.seen | {"body": shape.seen["body"].decode()}
    assert {name: one[name] for name in expected} == expected
    assert one["host"] == f"127.0.0.1:{bed.nginx.port}"  # ours, whatever the client's was
    assert (one["te"], one["connection"], one["upgrade"]) == ("", "", "")


@pytest.mark.parametrize(
    "bad", ["prefix 0x", "LF behind the size", "longer than said", "a request where trailers are due"]
)
async def test_a_bad_chunk_that_comes_later_leaves_a_request_that_nobody_serves(bed: Bed, bad: str) -> None:
    """The head and the chunks before have gone upstream: there it is a request without an end, and its connection."""
    async with connect(bed.gateway.port) as client:
        head, _, body = SHAPES[f"chunks: {bad}"].data.partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n" + b"5\r\n     \r\n")
        async with asyncio.timeout(20):
            while True:  # until nginx has a connection of its own for it
                if await bed.running():
                    break
                await asyncio.sleep(0.005)
        client.send(body + FOLLOWER)
        answer = await client.answer()
        assert (answer.status, answer.headers["x-sluiceway-error"]) == (400, "bad_request")
        assert await client.rest() == (b"", "fin")
    (one,) = await bed.seen()
    assert (one["status"], one["behind"]) == ("400", "")
