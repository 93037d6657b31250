"""Whatever JSON an upstream answers to whichever operation, and however it is cut, the client has its bytes.

Random documents made of the protocols' own words in places where nobody expects them: the gateway reads along with
every one of them, and must change none. They come as one document, as the data of events, compressed, and cut short.
"""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.calls import CALLS, Call
from tests.e2e.every_route import PROVIDERS
from tests.e2e.test_fidelity import chunked, cut, cuts
from tests.fakes.raw import connect
from tests.fakes.scripted import Breathe, Fin, ReadRequest, Scripted, Send, Step
from tests.fakes.worker import KEY, running

# Each example starts a worker and an upstream: some 10 ms. Sockets make it slow, not the strategies.
modest = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

BOUNDARY = b"----b0undary"
MODEL_APIS = [
    (scenario, service, [protocol])
    for scenario, protocol, service in sorted(
        {(call.scenario, call.protocol, {"dashscope": "qwen", "vllm": "own"}.get(call.protocol, "")) for call in CALLS}
    )
    for service in ([service] if service else ["claude" if protocol == "anthropic" else "gpt"])
]
"""One for each scenario and protocol, at a service whose own protocol it is."""

# -- documents -------------------------------------------------------------------------------------------------------

WORDS = """
    audio candidates characters choices code completion_tokens content content_block_delta custom_id data delta detail
    documents duration embeddings error event failed finish_reason id image image_count index input_tokens
    input_tokens_details length message message_delta message_start message_stop model null object output
    output_text output_tokens prompt_tokens refusal request_id response response.completed response.created
    results role seconds size status stop stop_reason SUCCEEDED FAILED task_id task_status text tool_calls
    total_tokens transcript.text.done type url usage video_count video_url width [DONE] 1024x1024
"""
NAMES = tuple(WORDS.split())
texts = st.one_of(
    st.sampled_from(NAMES), st.text(max_size=12), st.sampled_from(("\ud800", "\0", "水" * 99, "x" * 70_000))
)
numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.sampled_from((0, 1, -1, 2**53 + 1, 1e400, -0.0, 10**400))
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), inner, max_size=6),
    ),
    max_leaves=25,
)
documents = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), values, max_size=8),
    st.dictionaries(st.sampled_from(("output", "usage", "error", "data", "response", "message", "delta")), values),
    values,
)


def encoded(document: object, spaces: int | None, ascii_only: bool) -> bytes:
    """One of the ways to write it; NaN and lone surrogates as Python writes them, which orjson would not read."""
    text = json.dumps(document, indent=spaces, ensure_ascii=ascii_only, separators=None if spaces else (",", ":"))
    return text.encode("utf-8", "surrogatepass")


encodings = st.builds(encoded, documents, st.sampled_from((None, None, 1)), st.booleans())


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """A stream of events, spelt as one protocol or another does, or as none."""
    end = draw(st.sampled_from((b"\n", b"\r\n", b"\r")))
    space = draw(st.sampled_from((b" ", b"")))
    stream = b""
    for data in draw(st.lists(encodings, max_size=5)):
        for line in draw(st.lists(st.sampled_from((b":HTTP_STATUS/200", b": ping", b"id:7", b"retry: 5", b"x")))):
            stream += line + end
        name = draw(st.sampled_from((b"", b"result", b"error", b"message_delta", b"response.completed", b"ping")))
        stream += (b"event:" + space + name + end) if name else b""
        for line in data.split(b"\n"):
            stream += b"data:" + space + line + end
        stream += end
    return stream + draw(st.sampled_from((b"", b"data: [DONE]" + end * 2, b"data: {", b'data:{"error":{}}')))


@dataclass(frozen=True)
class Said:
    """What the upstream answers."""

    status: int
    kind: bytes
    body: bytes
    coding: bytes
    framing: str
    chunk_cuts: tuple[int, ...]
    segment_cuts: tuple[int, ...]

    @property
    def steps(self) -> list[Step]:
        """On the wire, segment by segment."""
        framing = {
            "length": b"Content-Length: %d\r\n" % len(self.body),
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "eof": b"",
        }[self.framing]
        coding = b"Content-Encoding: " + self.coding + b"\r\n" if self.coding else b""
        head = b"HTTP/1.1 %d x\r\nContent-Type: %s\r\n%s%s\r\n" % (self.status, self.kind, coding, framing)
        steps: list[Step] = [ReadRequest()]
        wire = head + (chunked(self.body, self.chunk_cuts) if self.framing == "chunked" else self.body)
        for segment in cut(wire, self.segment_cuts):
            steps += [Send(segment), Breathe()]
        return [*steps, Fin()] if self.framing == "eof" else steps


@st.composite
def answers(draw: st.DrawFn) -> Said:
    streamed = draw(st.booleans())
    body = draw(events() if streamed else encodings)
    body = draw(st.sampled_from((body, body, body, body[: len(body) // 2], b"\xef\xbb\xbf" + body)))
    coding = draw(st.sampled_from((b"", b"", b"gzip")))
    kinds = (b"text/event-stream", b"text/event-stream;charset=UTF-8") if streamed else (b"application/json",)
    return Said(
        draw(st.sampled_from((200, 200, 200, 201, 400, 404, 429, 500, 529))),
        draw(st.sampled_from((*kinds, b"application/json; charset=utf-8", b"application/problem+json"))),
        gzip.compress(body, mtime=0) if coding else body,
        coding,
        draw(st.sampled_from(("length", "chunked", "eof"))),
        tuple(draw(cuts)),
        tuple(draw(cuts)),
    )


# -- requests --------------------------------------------------------------------------------------------------------


def body_of(call: Call) -> tuple[bytes, bytes]:
    """Body and content type."""
    if not call.files:
        return (b"" if call.body is None else json.dumps(call.body).encode()), b"application/json"
    parts = [(f'name="{name}"', str(value).encode()) for name, value in (call.body or {}).items()]
    parts += [(f'name="{name}"; filename="{filename}"', content) for name, filename, content in call.files]
    lines = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY, named.encode(), content)
        for named, content in parts
    )
    return lines + b"--" + BOUNDARY + b"--\r\n", b"multipart/form-data; boundary=" + BOUNDARY


def wire_of(call: Call, body: bytes, kind: bytes) -> bytes:
    """The request as the client writes it."""
    path = f"/{call.scenario}-{call.protocol}{call.path}".replace("{id}", "a-1")
    more = "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
    head = f"{call.method} {path} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {KEY}\r\n"
    framing = b"Connection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
    return head.encode() + more.encode() + framing + body


def read(wire: bytes) -> tuple[bytes, bytes, bool]:
    """Head and body of an answer, and whether its framing says that the body is whole."""
    head, _, rest = wire.partition(b"\r\n\r\n")
    head += b"\r\n"
    if b"\r\nTransfer-Encoding: chunked\r\n" in head:
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if size == b"0":
                return head, body, rest == b"\r\n"
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return head, body, False
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    return head, rest, length is None or len(rest) == int(length[1])


def document_of(port: int) -> Mapping[str, Any]:
    url = f"http://127.0.0.1:{port}"
    return {
        "services": [
            {"name": name, "provider": provider, "base_url": url, "api_keys": ["k"]}
            for name, provider in PROVIDERS.items()
        ],
        "consumers": [{"name": "team", "keys": [KEY]}],
        "model_apis": [
            {
                "name": f"{scenario}-{protocols[0]}",
                "scenario": scenario,
                "protocols": protocols,
                "base_path": f"/{scenario}-{protocols[0]}",
                "routing": {"single": {"service": service}},
            }
            for scenario, service, protocols in MODEL_APIS
        ],
    }


EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1e400}}}\n\n'
    b'event:error\n:HTTP_STATUS/429\ndata:{"code":"x"}\n\ndata: {"choices":[null,{"index":-1}],"usage":[]}\n\n'
)


@modest
@given(call=st.sampled_from(CALLS), said=answers(), segments=cuts)
@example(
    call=CALLS[3], said=Said(200, b"text/event-stream", EVENTS, b"", "chunked", (1, 30, 77), (100, 200)), segments=[]
)
async def test_the_client_has_the_bytes_of_any_answer(call: Call, said: Said, segments: list[int]) -> None:
    body, kind = body_of(call)
    async with (
        Scripted(*said.steps) as upstream,
        running(dict(document_of(upstream.port))) as worker,
        connect(worker.port) as client,
    ):
        for segment in cut(wire_of(call, body, kind), segments):
            client.send(segment)
        wire, _ = await client.rest()
        fields = await worker.fields()
        assert upstream.connections[0].bodies == [body]
    head, received, whole = read(wire)
    if fields.get("error.type") == "upstream_truncated":  # a stream without the end that its protocol wants
        assert received.startswith(said.body)
    else:
        assert (received, whole) == (said.body, True)
    assert head.startswith(b"HTTP/1.1 %d x\r\n" % said.status)
    assert b"\r\nContent-Type: %s\r\n" % said.kind in head
    assert (b"Content-Encoding" in head) == (said.coding != b"")
    assert fields["sluiceway.response.bytes"] == len(said.body)
    assert (fields["sluiceway.operation"], fields["sluiceway.protocol"]) == (call.operation, call.protocol)
