"""What the simulated upstream does wrong on demand, seen from a raw client and from its ledger."""

import asyncio
import gzip
import hashlib
import json

import pytest
from aiohttp import ClientPayloadError, ClientSession

from benchmarks.upstream.script import NORMAL, Script, ScriptError, read_script
from benchmarks.upstream.server import Upstream

CHAT = "/v1/chat/completions"
STREAM = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello there"}]}


async def entry_of(session: ClientSession, upstream: Upstream, name: str, until: str = "finished") -> dict:
    async with session.get(f"{upstream.url}/sim/requests", params={"id": name, "until": until}) as answer:
        return (await answer.json())["requests"][-1]


async def raw_exchange(upstream: Upstream, path: str, name: str) -> tuple[bytes, Exception | None]:
    """Everything that came over the socket, and how it ended."""
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    body = json.dumps(STREAM).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: sim\r\nx-sim-id: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    received, error = b"", None
    try:
        while piece := await reader.read(65536):
            received += piece
    except ConnectionResetError as reset:
        error = reset
    writer.close()
    return received, error


def test_controls_come_by_path_query_and_header() -> None:
    path, script = read_script(
        "/sim:status=503,pace-ms=5/v1/models?sim-pace-ms=6&other=1", [(b"X-Sim-Pace-Ms", b"7"), (b"Host", b"h")]
    )
    assert (path, script) == ("/v1/models", Script(status=503, pace_ms=7))
    assert read_script("/v1/models?x=1", [(b"x-sim-id", b"name")]) == ("/v1/models", NORMAL)


@pytest.mark.parametrize("control", ["pace_ms=1", "pace-ms=-1", "done=2", "usage=never", "=", "stall-after"])
def test_bad_controls_are_refused(control: str) -> None:
    with pytest.raises(ScriptError):
        read_script(f"/sim:{control}/v1/models", [])


async def test_reset_after_two_chunks(upstream: Upstream, session: ClientSession) -> None:
    received, error = await raw_exchange(upstream, f"/sim:reset-after=2{CHAT}", "reset")
    assert isinstance(error, ConnectionResetError)
    assert received.count(b"data: ") <= 2
    entry = await entry_of(session, upstream, "reset")
    assert (entry["ending"], entry["chunks"], entry["output_tokens"]) == ("cut", 2, None)


async def test_truncated_after_two_chunks(upstream: Upstream, session: ClientSession) -> None:
    received, error = await raw_exchange(upstream, f"/sim:truncate-after=2{CHAT}", "truncated")
    assert error is None
    assert received.count(b"data: ") == 2
    assert not received.endswith(b"0\r\n\r\n")
    assert (await entry_of(session, upstream, "truncated"))["ending"] == "cut"


async def test_malformed_chunk(upstream: Upstream) -> None:
    received, error = await raw_exchange(upstream, f"/sim:malformed-after=1{CHAT}", "malformed")
    assert error is None
    assert received.endswith(b"\r\nzz\r\nthis is no chunk\r\n")


async def test_a_json_answer_shorter_than_its_length(upstream: Upstream, session: ClientSession) -> None:
    path = f"/sim:chunk-bytes=10,truncate-after=3{CHAT}"
    with pytest.raises(ClientPayloadError):
        async with session.post(upstream.url + path, json={"model": "m", "messages": []}) as answer:
            await answer.read()


async def test_body_that_ends_with_the_connection(upstream: Upstream, session: ClientSession) -> None:
    received, error = await raw_exchange(upstream, f"/sim:framing=eof{CHAT}", "eof")
    assert error is None
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"ength" not in head
    assert b"ncoding" not in head
    assert body.endswith(b"data: [DONE]\n\n")
    entry = await entry_of(session, upstream, "eof")
    assert entry["ending"] == "complete"
    assert entry["response_sha256"] == hashlib.sha256(body).hexdigest()


async def test_a_client_that_leaves_a_stalled_stream_is_noticed(upstream: Upstream, session: ClientSession) -> None:
    headers = {"x-request-id": "leaver", "authorization": "Bearer sk-1"}
    answer = await session.post(f"{upstream.url}/sim:stall-after=2{CHAT}", json=STREAM, headers=headers)
    assert await answer.content.readuntil(b"\n\n")
    assert (await entry_of(session, upstream, "leaver", "seen"))["ending"] == "running"
    answer.close()
    entry = await entry_of(session, upstream, "leaver")
    assert (entry["ending"], entry["chunks"], entry["status"]) == ("client_left", 2, 200)
    assert entry["client_left_at_s"] == entry["finished_at_s"] > 0
    assert ["authorization", "Bearer sk-1"] in entry["headers"]


async def test_a_gate_opens_when_told(upstream: Upstream, session: ClientSession) -> None:
    headers = {"x-sim-id": "gated", "x-sim-gate-after": "1"}
    async with session.post(upstream.url + CHAT, json=STREAM, headers=headers) as answer:
        assert b'"role":"assistant"' in await answer.content.readuntil(b"\n\n")
        async with session.post(f"{upstream.url}/sim/open?id=gated") as opened:
            assert await opened.json() == {"opened": 1}
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
    assert (await entry_of(session, upstream, "gated"))["ending"] == "complete"


async def test_chunks_cut_events_anywhere_and_lines_may_end_with_crlf(
    upstream: Upstream, session: ClientSession
) -> None:
    headers = {"x-sim-id": "cut", "x-sim-chunk-bytes": "7", "x-sim-newline": "crlf", "x-sim-keepalives": "1"}
    async with session.post(upstream.url + CHAT, json=STREAM, headers=headers) as answer:
        body = await answer.read()
    assert body.startswith(b":keepalive\r\n\r\ndata: {")
    assert body.endswith(b"data: [DONE]\r\n\r\n")
    assert (await entry_of(session, upstream, "cut"))["chunks"] == -(-len(body) // 7)


async def test_gzip(upstream: Upstream, session: ClientSession) -> None:
    headers = {"x-sim-gzip": "1", "accept-encoding": "gzip"}
    async with session.post(upstream.url + CHAT, json=STREAM, headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(await answer.read()).endswith(b"data: [DONE]\n\n")
    async with session.post(upstream.url + CHAT, json=STREAM, headers={**headers, "accept-encoding": "br"}) as answer:
        assert "content-encoding" not in answer.headers


async def test_no_done_and_a_number_of_events(upstream: Upstream, session: ClientSession) -> None:
    path = f"/sim:done=0,events=40,pace-ms=1,first-token-delay-ms=1,head-delay-ms=1{CHAT}"
    async with session.post(upstream.url + path, json=STREAM) as answer:
        events = (await answer.text()).strip().split("\n\n")
    assert len(events) == 1 + 40 + 1
    assert '"finish_reason":"stop"' in events[-1]


async def test_an_upload_is_hashed_as_it_came(upstream: Upstream, session: ClientSession) -> None:
    image = "A" * 3_000_000
    document = {"messages": [{"role": "user", "content": [{"image_url": {"url": image}}]}], "stream": False}
    body = json.dumps({**document, "model": "last"}).encode()

    async def pieces():
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async with session.post(upstream.url + CHAT, data=pieces(), headers={"x-sim-id": "upload"}) as answer:
        assert (await answer.json())["model"] == "last"
    entry = await entry_of(session, upstream, "upload")
    assert (entry["body_bytes"], entry["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert (entry["model"], entry["stream"]) == ("last", False)


async def test_an_answer_before_the_body(upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    writer.write(b"POST /sim:early=1,status=413/v1/models HTTP/1.1\r\nHost: sim\r\nContent-Length: 1000000\r\n\r\n{")
    assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()


async def test_the_ledger_is_cleared_and_counts(upstream: Upstream, session: ClientSession) -> None:
    for number in range(3):
        async with session.post(upstream.url + CHAT, json={"model": "m", "n": number}) as answer:
            assert answer.status == 200
    async with session.get(upstream.url + "/sim/requests?limit=2") as answer:
        assert [entry["id"] for entry in (await answer.json())["requests"]] == ["sim-2", "sim-3"]
    async with session.get(upstream.url + "/sim/stats") as answer:
        stats = await answer.json()
    assert (stats["requests"], stats["complete"], stats["in_flight"], stats["status_200"]) == (3, 3, 0, 3)
    async with session.delete(upstream.url + "/sim/requests") as answer:
        assert answer.status == 200
    async with session.get(upstream.url + "/sim/stats") as answer:
        assert await answer.json() == {"requests": 0, "in_flight": 0, "kept": 0}
