"""What the table of endings is made of: what is asked, what upstreams say, and what clients do.

Rows run one after the other, so that two events are enough for all: `ASKED`, the upstream has come so far; `SEEN`, the
client has seen output. `MARK` is in whatever is output here.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.gateway import Gateway
from tests.fakes.raw import WAIT_S, RawClient
from tests.fakes.scripted import ReadRequest, Send, Step

KEY, OTHER_KEY = "sk-of-the-table", "sk-of-another-team"
ASKED, SEEN = asyncio.Event(), asyncio.Event()
MARK = b"hi"

# -- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asks:
    """A request, without the place of the row's Model API."""

    path: bytes
    body: bytes
    protocol: str = "openai"
    scenario: str = "text"
    lines: bytes = b""


PLAIN = Asks(b"/v1/chat/completions", b'{"model":"m","messages":[]}')
STREAM = Asks(PLAIN.path, b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}')
TWO_CHOICES = Asks(PLAIN.path, STREAM.body.replace(b'"model"', b'"n":2,"model"'))
UNNAMED = Asks(PLAIN.path, b'{"messages":[]}')
UNREADABLE = Asks(PLAIN.path, b'{"messages":[')
MESSAGES = Asks(b"/v1/messages", b'{"model":"m","stream":true,"max_tokens":9,"messages":[]}', "anthropic")
NATIVE_PATH = b"/api/v1/services/aigc/text-generation/generation"
NATIVE = Asks(NATIVE_PATH, b'{"model":"m","input":{"messages":[]}}', "dashscope")
NATIVE_STREAM = Asks(NATIVE_PATH, NATIVE.body, "dashscope", lines=b"X-DashScope-SSE: enable\r\n")
RESPONSES = Asks(b"/v1/responses", b'{"model":"m","stream":true,"input":"x"}')
EMBEDDINGS = Asks(b"/v1/embeddings", b'{"model":"m","input":["x","y"]}', scenario="embedding")
IMAGES = Asks(b"/v1/images/generations", b'{"model":"m","prompt":"x"}', scenario="image")

# -- what the upstream says ------------------------------------------------------------------------------------------

SSE = Send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
SSE_TO_EOF = Send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
JSON = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
END = Send(b"0\r\n\r\n")
TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
GOT = ReadRequest()


def event(data: bytes, name: bytes = b"") -> bytes:
    return (b"event:%b\n" % name if name else b"") + b"data: %b\n\n" % data


def said(*events: bytes) -> Send:
    """Each in a chunk of its own."""
    return Send(b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in events))


def answer(status: int, body: bytes) -> tuple[Step, ...]:
    return (GOT, Send(JSON % (status, len(body), body)))


def choice(delta: bytes, finish: bytes = b"null", more: bytes = b"") -> bytes:
    choices = b'[{"index":0,"delta":%b,"finish_reason":%b}]' % (delta, finish)
    return event(b'{"id":"r1","model":"m-1","choices":%b%b}' % (choices, more))


ROLE, TOKEN, FINISH = choice(b'{"role":"assistant"}'), choice(b'{"content":"hi"}'), choice(b"{}", b'"stop"')
COUNTED_TOKEN = choice(b'{"content":"hi"}', more=b',"usage":{"prompt_tokens":11,"completion_tokens":2}')
USAGE = event(b'{"id":"r1","model":"m-1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5}}')
DONE = event(b"[DONE]")
WHOLE = (ROLE, TOKEN, FINISH, USAGE, DONE)
ERROR = event(b'{"error":{"message":"hi","type":"server_error","code":"overloaded_now"}}')
CHAT = b'{"id":"r1","model":"m-1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]%b}'
CHAT_USAGE = CHAT % b',"usage":{"prompt_tokens":11,"completion_tokens":5}'
CODED = b'{"error":{"message":"hi","type":"t","code":"provider_code"}}'
CODED_NATIVE = b'{"code":"Arrearage","message":"hi","request_id":"r1"}'

M_START = event(
    b'{"type":"message_start","message":{"id":"m1","model":"m-1",'
    b'"usage":{"input_tokens":4,"cache_read_input_tokens":7,"output_tokens":1}}}',
    b"message_start",
)
M_DELTA = event(b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}', b"content_block_delta")
M_LAST = event(b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}')
M_STOP = event(b'{"type":"message_stop"}', b"message_stop")
M_ERROR = event(b'{"type":"error","error":{"type":"overloaded_error","message":"hi"}}', b"error")


def native(output_tokens: int, finish: bytes) -> bytes:
    output = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"%b"}]}' % finish
    usage = b'{"input_tokens":11,"output_tokens":%d}' % output_tokens
    return event(b'{"output":%b,"usage":%b,"request_id":"r1"}' % (output, usage), b"result")


N_ERROR = event(CODED_NATIVE, b"error")
R_DELTA = event(b'{"type":"response.output_text.delta","delta":"hi"}', b"response.output_text.delta")
R_DONE = event(
    b'{"type":"response.completed","response":{"id":"r1","model":"m-1","status":"completed",'
    b'"usage":{"input_tokens":11,"output_tokens":5}}}',
    b"response.completed",
)
VECTORS = b'{"model":"m-1","data":[{"embedding":[1]},{"embedding":[2]}],"usage":{"prompt_tokens":11,"hi":1}}'
PICTURES = b'{"created":1,"data":[{"url":"hi"},{"url":"hi"}],"usage":{"input_tokens":11,"output_tokens":5}}'

# -- what the client does --------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """One row as it is played."""

    client: RawClient
    request: bytes
    gateway: Gateway
    got: bytes = b""
    """What the client has of its answer."""

    async def read(self, mark: bytes | None = None) -> None:
        """Until `mark` has come, or (None) to the end, whichever it is."""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.client.reader.read(65536), WAIT_S):
                self.got += piece
                if MARK in self.got:
                    SEEN.set()
                if mark is not None and mark in self.got:
                    return

    @property
    def whole(self) -> bool:
        """The framing of the answer came to its end."""
        head, _, body = self.got.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            return body.endswith(b"0\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        return length is not None and len(body) == int(length[1])


async def reads(scene: Scene) -> None:
    scene.client.send(scene.request)
    await scene.read()


async def leaves_once_asked(scene: Scene) -> None:
    scene.client.send(scene.request)
    await asyncio.wait_for(ASKED.wait(), WAIT_S)
    scene.client.leave()


async def leaves_while_uploading(scene: Scene) -> None:
    scene.client.send(scene.request.replace(b"Content-Length: ", b"Content-Length: 9999") + bytes(200_000))
    await asyncio.wait_for(ASKED.wait(), WAIT_S)
    scene.client.leave()


async def stops_uploading(scene: Scene) -> None:
    scene.client.send(scene.request.replace(b"Content-Length: ", b"Content-Length: 9"))
    await scene.read()


async def uploads_far_too_much(scene: Scene) -> None:
    scene.client.send(scene.request.replace(b"Content-Length: ", b"Content-Length: 9999") + bytes(200_000))
    await scene.read()


def leaves_after(mark: bytes) -> "Does":
    async def leaves(scene: Scene) -> None:
        scene.client.send(scene.request)
        await scene.read(mark)
        scene.client.leave()

    return leaves


async def takes_nothing(scene: Scene) -> None:
    scene.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    scene.client.send(scene.request)


async def takes_no_more_and_leaves(scene: Scene) -> None:
    scene.client.send(scene.request)
    await scene.read(MARK)
    scene.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.wait_for(ASKED.wait(), WAIT_S)
    scene.client.leave()


async def is_drained(scene: Scene) -> None:
    """Workers are replaced, and this request takes longer than the drain."""
    scene.client.send(scene.request)
    ready = len(scene.gateway.lines.of("worker_ready"))
    await asyncio.wait_for(ASKED.wait(), WAIT_S)
    scene.gateway.signal(signal.SIGUSR2)
    await scene.read()
    await scene.gateway.lines.wait("worker_ready", ready + 1)


async def is_one_too_many(scene: Scene) -> None:
    """Another request of the Model API, which takes one at a time, is running."""
    _, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
    writer.write(scene.request)
    await asyncio.wait_for(ASKED.wait(), WAIT_S)
    await reads(scene)
    writer.transport.abort()


def sends(data: bytes) -> "Does":
    """These bytes in place of the request."""

    async def does(scene: Scene) -> None:
        scene.client.send(data)
        await scene.read()

    return does


def changed(old: bytes, new: bytes) -> "Does":
    """The request with other bytes in it."""

    async def does(scene: Scene) -> None:
        scene.client.send(scene.request.replace(old, new))
        await scene.read()

    return does


Does = Callable[[Scene], Awaitable[None]]
