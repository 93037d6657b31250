"""The comparison's client tells what a contestant did, and not something kinder."""

import socket
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.contest import asked
from benchmarks.contest.client import Client, Plan
from benchmarks.contest.outcome import percentiles
from tests.benchmarks.answering import answering, contest_upstream

RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with contest_upstream() as url:
        yield url


def ask(url: str, what: str, number: int = 0, **plan: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a plan, and of its one kind."""
    result = Client(Plan(url, {}, [{"what": what, "number": number, "name": "one"}], **plan)).run()
    return result, result["kinds"]["one"]


def test_a_refusal_is_no_request_that_was_done() -> None:
    """It is quick: counted, it would be a rate, and the best of all latencies."""
    with answering(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%b", b"busy") as url:
        _, one = ask(url, "chat", connections=2, count=6, seconds=1.0)
    assert (one["requests"], one["answered"], one["errors"]) == (0, 6, 6)
    assert (one["latency_ms"], one["bytes_out"]) == ({}, 0)


@pytest.mark.parametrize("received", [b'{"usage":{"prompt_tokens":99}}', b"{}"])
def test_an_upload_is_seen_to_have_arrived_where_the_head_comes_alone(received: bytes) -> None:
    with answering(RIGHT, received, apart=True) as url:
        _, cut = ask(url, "upload", 100_000, connections=1, count=1, seconds=1.0)
    assert cut["reasons"] == {"the upstream received less than was sent": 1}
    with answering(RIGHT, asked.chat_answer("", 100_000), apart=True) as url:
        _, whole = ask(url, "upload", 100_000, connections=1, count=1, seconds=1.0)
    assert (whole["requests"], whole["errors"]) == (1, 0)


@pytest.mark.parametrize(("what", "number"), [("image", 750_000), ("embeddings", 0)])
def test_an_answer_that_was_cut_is_an_error(upstream: str, what: str, number: int) -> None:
    _, whole = ask(upstream, what, number, connections=1, count=1, seconds=1.0)
    assert (whole["requests"], whole["errors"]) == (1, 0)
    with answering(RIGHT, b"{}") as url:
        _, cut = ask(url, what, number, connections=1, count=1, seconds=1.0)
    assert (cut["requests"], cut["errors"]) == (0, 1)


def test_what_was_given_up_is_in_the_tail() -> None:
    with answering(b"", b"") as url:
        result, one = ask(url, "chat", rate=100.0, connections=1, seconds=0.1, finish_s=0.2)
    assert (result["unfinished"], one["requests"]) == (10, 0)  # one on its way, nine that wait for its connection
    assert one["latency_ms"]["p50"] >= 200
    assert one["first_ms"]["max"] >= 290


def test_answers_of_the_warm_up_are_counted_where_records_are() -> None:
    """The contestant keeps a record of each: were they left out, as many others could go missing unseen."""
    with answering(RIGHT, b"{}") as url:
        _, one = ask(url, "chat", rate=100.0, connections=4, seconds=0.2, warm_s=0.1)
    assert (one["requests"], one["answered"]) == (10, 20)


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    hundred = percentiles(array("q", [number * 1_000_000 for number in range(1, 101)]))
    assert hundred == {"p50": 50, "p90": 90, "p99": 99, "max": 100}  # of so few, no 99.9th
    assert percentiles(array("q", [number * 1_000_000 for number in range(1, 2001)]))["p999"] == 1998
    assert percentiles(array("q", [7_000_000])) == {"p50": 7, "p90": 7, "p99": 7, "max": 7}


def test_the_upstream_outlives_a_contestant_that_frames_badly(upstream: str) -> None:
    host, _, port = upstream.removeprefix("http://").partition(":")
    for bad in (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n", b"nothing\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as channel:
            channel.sendall(bad)
            assert channel.recv(100) == b""
    _, one = ask(upstream, "chat", connections=1, count=1, seconds=1.0)
    assert one["requests"] == 1
