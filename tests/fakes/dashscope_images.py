"""DashScope as far as it makes images, in the test's own loop: what it received, and answers that the test gives.

Requests are read as they come: of each data URL it keeps kind, size and hash, never the bytes, so that it can take the
largest. Tasks say what the test has put into `tasks`, one answer for each look, the last again and again.

    async with DashScopeImages() as upstream:
        upstream.answers = [images_answer(f"{upstream.url}/stored/a.png")]
        …requests to upstream.url…
        [request] = upstream.requests
"""

import asyncio
import hashlib
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

REQUEST_ID = "8f0b9c7a-0000-4000-8000-000000000001"


@dataclass
class Picture:
    """A data URL that came."""

    kind: str
    size: int = 0
    sha256: str = ""


@dataclass
class Received:
    """A request. Data URLs in `document` are their numbers in `pictures`: `data:0`, `data:1`, …"""

    method: str
    path: str
    headers: Mapping[str, str]
    document: Any = None
    pictures: list[Picture] = field(default_factory=list)


class _Pictures:
    """Takes data URLs out of JSON that passes by."""

    def __init__(self) -> None:
        self.text = b""
        self.pictures: list[Picture] = []
        self._rest = b""
        self._hash = hashlib.sha256()
        self._inside = False

    def feed(self, data: bytes) -> None:
        self._rest += data
        while self._inside or b'"data:' in self._rest:
            if not self._inside:
                before, _, self._rest = self._rest.partition(b'"data:')
                if b";base64," not in self._rest:
                    self._rest = b'"data:' + self._rest
                    self.text += before
                    return
                kind, _, self._rest = self._rest.partition(b";base64,")
                self.text += before + b'"data:%d"' % len(self.pictures)
                self.pictures.append(Picture(kind.decode()))
                self._hash = hashlib.sha256()
                self._inside = True
            encoded, quote, behind = self._rest.partition(b'"')
            whole = len(encoded) if quote else len(encoded) // 4 * 4
            decoded = a2b_base64(encoded[:whole], strict_mode=True)
            self._hash.update(decoded)
            picture = self.pictures[-1]
            picture.size += len(decoded)
            self._rest = encoded[whole:] + behind
            if not quote:
                return
            self._inside = False
            picture.sha256 = self._hash.hexdigest()

    def end(self) -> bytes:
        assert not self._inside
        return self.text + self._rest


class DashScopeImages:
    """See the module. `answers`: for each call that makes images its answer, the last again and again."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.headers: dict[str, str] = {}
        """Of answers."""
        self.tasks: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.asked: list[Received] = []
        """For tasks."""
        self.looked = asyncio.Event()
        """Somebody asked for a task."""
        self.came = asyncio.Event()
        """A call that makes images did, whole."""
        self.may_answer = asyncio.Event()
        """Cleared: they hang."""
        self.may_answer.set()
        self.left = asyncio.Event()
        """Whoever waited for one is gone."""
        self.may_look = asyncio.Event()
        """Cleared: looks at tasks hang."""
        self.may_look.set()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.stored: dict[str, bytes] = {}
        self.fetched: list[Received] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.method, request.raw_path, request.headers)
        if request.path.startswith("/stored/"):
            self.fetched.append(received)
            return await self._store(request)
        if "/api/v1/tasks/" in request.path:
            self.asked.append(received)
            return await self._task(request, request.path.partition("/api/v1/tasks/")[2])
        pictures = _Pictures()
        async for piece in request.content.iter_any():
            pictures.feed(piece)
        received.document = orjson.loads(pictures.end())
        received.pictures = pictures.pictures
        self.requests.append(received)
        self.came.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        status, document = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return _json(status, document, self.headers)

    async def _store(self, request: web.Request) -> web.StreamResponse:
        body = self.stored.get(request.path.removeprefix("/stored/"))
        if body is None:
            return web.Response(status=404)
        answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await answer.prepare(request)
        for start in range(0, len(body), 65536):
            await answer.write(body[start : start + 65536])
        return answer

    async def _task(self, request: web.Request, name: str) -> web.Response:
        if request.method == "POST":
            self.cancelled.put_nowait(name.removesuffix("/cancel"))
            return _json(200, {"request_id": REQUEST_ID}, {})
        self.looked.set()
        await self.may_look.wait()
        looks = self.tasks[name]
        status, document = looks.pop(0) if len(looks) > 1 else looks[0]
        return _json(status, document, {})


def _json(status: int, document: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(document), content_type="application/json", headers=headers or None
    )


def images_answer(*urls: str, **usage: Any) -> tuple[int, dict[str, Any]]:
    """Of a call that answers at once."""
    content = [{"image": url} for url in urls]
    choices = [{"finish_reason": "stop", "message": {"role": "assistant", "content": content}}]
    said = usage or {"image_count": len(urls), "width": 1024, "height": 768}
    return 200, {"output": {"choices": choices}, "usage": said, "request_id": REQUEST_ID}


def refusal(status: int, code: str, message: str = "No.") -> tuple[int, dict[str, Any]]:
    """Of any call."""
    return status, {"code": code, "message": message, "request_id": REQUEST_ID}


def task_answer(task_id: str, status: str, *results: dict[str, Any], **output: Any) -> tuple[int, dict[str, Any]]:
    """Of a task, as it was made or as it is fetched."""
    document: dict[str, Any] = {
        "output": {"task_id": task_id, "task_status": status, **output},
        "request_id": REQUEST_ID,
    }
    if results:
        document["output"]["results"] = list(results)
        document["usage"] = {"image_count": sum("url" in result for result in results)}
    return 200, document
