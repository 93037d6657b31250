"""OPTIONS, and what web pages may read: at a worker's socket, as browsers ask."""

import pytest

from proxy.cors import ASKED_BYTES_MAX, with_lines
from tests.fakes.raw import Answer, RawClient, connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import document_of, running
from tests.proxy.test_edge import OK, post, refused

APP = "https://app.example.com"
CORS = {"origins": [APP, "http://localhost:3000"]}
PATH = b"/v1/chat/completions"


def options(target: bytes = PATH, *lines: bytes, body: bytes = b"") -> bytes:
    return (
        b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    )


def preflight(origin: str = APP, *lines: bytes, target: bytes = PATH) -> bytes:
    return options(target, b"Origin: " + origin.encode(), b"Access-Control-Request-Method: POST", *lines)


async def ask(client: RawClient, request: bytes, *, bodiless: bool = True) -> Answer:
    client.send(request)
    return await client.answer(bodiless=bodiless)


def access_control(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


# -- OPTIONS ---------------------------------------------------------------------------------------------------------


async def test_what_may_be_asked_of_a_path() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        for target, allow in (
            (PATH, "POST, OPTIONS"),
            (PATH + b"/?a=b", "POST, OPTIONS"),
            (b"*", "POST, OPTIONS"),
        ):
            answer = await ask(client, options(target))
            assert (answer.status, answer.headers["allow"]) == (204, allow)
            assert answer.headers["x-sluiceway-request-id"]
            assert "content-length" not in answer.headers
            assert "x-sluiceway-error" not in answer.headers
            assert not access_control(answer)
            fields = await worker.fields()
            assert fields["sluiceway.outcome"] == "ok"
            assert fields["http.request.method"] == "OPTIONS"
            assert fields["http.response.status_code"] == 204
            assert "error.type" not in fields
        assert worker.records.empty()


async def test_a_path_that_nobody_has() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        answer = await ask(client, options(b"/nothing"), bodiless=False)
        assert (answer.status, answer.headers["x-sluiceway-error"]) == (404, "no_route")
        assert (await worker.fields())["sluiceway.outcome"] == "rejected"


async def test_another_method_is_not_answered_so() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        answer = await ask(client, options().replace(b"OPTIONS", b"GET", 1), bodiless=False)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_a_body_is_not_taken_for_the_next_request() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker:
        async with connect(worker.port) as client:
            for _ in range(2):  # it is small and has come: the connection stays
                assert (await ask(client, options(PATH, b"Content-Length: 4", body=b"GET "))).status == 204
        async with connect(worker.port) as client:
            answer = await ask(client, options(PATH, b"Content-Length: 400000", body=b"GET / HTTP/1.1\r\n\r\n"))
            assert (answer.status, answer.headers["connection"]) == (204, "close")
            assert (await client.rest())[0] == b""


async def test_options_in_a_row_and_over_http_1_0() -> None:
    async with running(document_of("http://127.0.0.1:9")) as worker, connect(worker.port) as client:
        client.send(options() * 3 + options().replace(b"HTTP/1.1", b"HTTP/1.0"))
        heads = [await client.head() for _ in range(4)]
        assert [head.status for head in heads] == [204] * 4
        assert heads[3].headers["connection"] == "close"
        assert await client.rest() == (b"", "fin")


# -- preflights ------------------------------------------------------------------------------------------------------


async def test_a_preflight_of_a_page_that_may() -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        asked = "authorization,content-type, x-stainless-os"
        answer = await ask(client, preflight(APP, b"Access-Control-Request-Headers: " + asked.encode()))
        assert (answer.status, answer.headers["allow"], answer.headers["vary"]) == (204, "POST, OPTIONS", "Origin")
        expose = access_control(answer).pop("access-control-expose-headers")
        assert access_control(answer) == {
            "access-control-allow-origin": APP,
            "access-control-allow-methods": "POST, OPTIONS",
            "access-control-allow-headers": asked,
            "access-control-max-age": "7200",
            "access-control-expose-headers": expose,
        }
        assert (await worker.fields())["sluiceway.outcome"] == "ok"


async def test_a_preflight_of_any_page_where_all_may() -> None:
    async with (
        running(document_of("http://127.0.0.1:9", cors={"origins": ["*"]})) as worker,
        connect(worker.port) as client,
    ):
        for origin in (APP, "https://other.example", "null"):
            answer = await ask(client, preflight(origin))
            assert access_control(answer)["access-control-allow-origin"] == "*"
            assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://other.example", APP + ":8443", APP.upper(), "http://app.example.com", "null", ""]
)
async def test_a_preflight_of_another_page(origin: str) -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        answer = await ask(client, preflight(origin))
        assert answer.status == 204
        assert not access_control(answer)
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "asked",
    [b"a b", b"a,", b"a;b", b"a\x01", b"a: b", b"x" * (ASKED_BYTES_MAX + 1), b"\xff"],
    ids=["space", "comma", "semicolon", "control", "colon", "long", "no ascii"],
)
async def test_headers_that_are_no_names_are_not_repeated(asked: bytes) -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        answer = await ask(client, preflight(APP, b"Access-Control-Request-Headers: " + asked), bodiless=False)
        assert "access-control-allow-headers" not in answer.headers


async def test_a_preflight_needs_a_method() -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        answer = await ask(client, options(PATH, b"Origin: " + APP.encode()))
        assert answer.headers["access-control-allow-origin"] == APP
        assert "access-control-allow-methods" not in answer.headers


# -- answers ---------------------------------------------------------------------------------------------------------

UPSTREAMS = (
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://upstream.example\r\nX-One:  a \r\n"
    b"access-control-allow-credentials: true\r\nVary: Accept-Encoding\r\nContent-Length: 2\r\n\r\n{}"
)


async def test_an_answer_to_a_page_that_may() -> None:
    async with (
        Scripted(ReadRequest(), Send(UPSTREAMS)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", cors=CORS)) as worker,
        connect(worker.port) as client,
    ):
        answer = await ask(client, post(b"{}", b"Origin: " + APP.encode()), bodiless=False)
        assert answer.body == b"{}"
        assert answer.head.count(b"ccess-") == 2
        assert access_control(answer)["access-control-allow-origin"] == APP
        exposed = access_control(answer)["access-control-expose-headers"]
        assert {"x-sluiceway-request-id", "x-sluiceway-error", "retry-after"} <= set(exposed.split(", "))
        assert b"\r\nVary: Origin\r\n" in answer.head
        assert b"\r\nVary: Accept-Encoding\r\n" in answer.head
        assert b"Origin: " + APP.encode() in upstream.connections[0].heads[0]


async def test_an_answer_to_another_page() -> None:
    async with (
        Scripted(ReadRequest(), Send(UPSTREAMS)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", cors=CORS)) as worker,
        connect(worker.port) as client,
    ):
        answer = await ask(client, post(b"{}", b"Origin: https://other.example"), bodiless=False)
        assert (answer.status, access_control(answer)) == (200, {})


@pytest.mark.parametrize(
    ("cors", "lines"), [({}, (b"Origin: https://app.example.com",)), (CORS, ())], ids=["off", "no page"]
)
async def test_an_answer_to_whoever_is_no_page_passes_as_it_is(cors: dict[str, list[str]], lines: tuple[bytes]) -> None:
    async with (
        Scripted(ReadRequest(), Send(UPSTREAMS)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", cors=cors)) as worker,
        connect(worker.port) as client,
    ):
        answer = await ask(client, post(b"{}", *lines), bodiless=False)
        assert answer.head.startswith(UPSTREAMS[: UPSTREAMS.index(b"\r\n\r\n")].replace(b":  a ", b": a "))


PAGE = b" HTTP/1.1\r\nHost: x\r\nOrigin: " + APP.encode() + b"\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [(b"GET /nothing" + PAGE, 404), (b"POST " + PATH + PAGE, 401), (preflight(target=b"/nothing"), 404)],
    ids=["no route", "no key", "preflight"],
)
async def test_the_gateways_own_errors_can_be_read_too(request_bytes: bytes, status: int) -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        answer = await ask(client, request_bytes, bodiless=False)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, APP)
        assert "x-sluiceway-error" in answer.headers["access-control-expose-headers"]


async def test_a_stream_to_a_page() -> None:
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        Scripted(ReadRequest(), Send(stream + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", cors=CORS)) as worker,
        connect(worker.port) as client,
    ):
        answer = await ask(client, post(b"{}", b"Origin: " + APP.encode()), bodiless=False)
        assert (answer.headers["access-control-allow-origin"], answer.body) == (APP, b"data: [DONE]\n\n")


async def test_what_is_no_request_is_refused_as_ever() -> None:
    async with running(document_of("http://127.0.0.1:9", cors=CORS)) as worker, connect(worker.port) as client:
        client.send(b"NONSENSE\r\nOrigin: https://app.example.com\r\n\r\n")
        await refused(client, worker, 400, "bad_request")


async def test_a_drain_closes_the_connection_of_a_page() -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", cors=CORS)) as worker,
        connect(worker.port) as client,
    ):
        worker.server.draining = True
        answer = await ask(client, post(b"{}", b"Origin: " + APP.encode()), bodiless=False)
        assert (answer.headers["connection"], answer.headers["access-control-allow-origin"]) == ("close", APP)


def test_lines_go_behind_the_status() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: b\r\nACCESS-Control-X: y\r\n\r\n"
    assert with_lines(head, b"C: d\r\n") == b"HTTP/1.1 200 OK\r\nC: d\r\nA: b\r\n\r\n"
    assert with_lines(b"HTTP/1.1 200 OK\r\n\r\n", b"") == b"HTTP/1.1 200 OK\r\n\r\n"
