"""What is managed below a path, through a worker: what is kept of such paths, what of them reaches an upstream, and
which one, since its requests name no model."""

import pytest

from tests.fakes.raw import connect
from tests.fakes.scripted import ReadRequest, Scripted, Send
from tests.fakes.worker import KEY, document_of, running
from tests.proxy.test_edge import OK

OTHERS = {"scenario": "others", "protocols": ["openai"]}


def get(path: bytes, key: str = KEY) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n" % (path, key.encode())


async def test_nothing_is_kept_of_paths_that_anybody_may_invent() -> None:
    """4096 of 60 KB were 250 MB, and nobody had to have a key for it."""
    async with running(document_of("http://127.0.0.1:1", model_api=OTHERS)) as worker, connect(worker.port) as client:
        for path in (b"/v1/files", b"/v1/files/", b"/v1/files//", b"/v1/files/a", b"/v1/files/%b" % (b"x" * 60_000)):
            client.send(get(path, "nobody"))
            assert (await client.answer()).status == 401
        routes = [route for route, _ in worker.pipeline._fields.values()]
        assert sorted(route.template for route in routes) == ["/v1/files", "/v1/files/*"]
        assert not any(route.rest for route in routes)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/v1/files/a%2Fb/", 200),
        (b"/v1/files/.../x", 200),
        (b"/v1/files/..x", 200),
        (b"/v1/files/%E4%BD%A0%20..x;y=..", 200),
        (b"/v1/files/50%25", 200),
        (b"/v1/files/..%2f..%2fchat", 400),  # the edge's, as for every path
        (b"/v1/files/..%3b/x", 404),
        (b"/v1/files/..%3Bx=1/x", 404),
        (b"/v1/files/%252e%252e/x", 404),
        (b"/v1/files/a%252f..%252f..", 404),
        (b"/v1/files/a%255c..%255cx", 404),
        (b"/v1/files/%25252e./x", 404),
        (b"/v1/files/..%20/x", 404),
        (b"/v1/files/%20.%20", 404),
        (b"/v1/files/..%2509/x", 404),
        (b"/v1/files/%c0%ae%c0%ae/x", 404),
    ],
)
async def test_dot_segments_in_any_writing_stay_here(path: bytes, status: int) -> None:
    async with (
        Scripted(ReadRequest(), Send(OK)) as upstream,
        running(document_of(f"http://127.0.0.1:{upstream.port}", model_api=OTHERS)) as worker,
        connect(worker.port) as client,
    ):
        client.send(get(path))
        assert (await client.answer()).status == status
        assert [head.split(b" ")[1] for head in upstream.heads] == ([path] if status == 200 else [])


@pytest.mark.parametrize("status", [200, 503])
async def test_what_names_no_model_goes_to_the_first_target_as_it_is(status: int) -> None:
    """Nor does its record name the model that the target stands for: not even one that is told of a kept answer."""
    refused = b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}"
    body = b'{"model":"a","purpose":"x"}'
    routing = {"by_model": [{"match": "a", "service": "sim", "model": "b"}, {"match": "*", "service": "sim"}]}
    fallback = [{"service": "down", "model": "c"}] if status == 503 else []
    async with Scripted(ReadRequest(), Send(OK if status == 200 else refused)) as upstream:
        document = document_of(
            f"http://127.0.0.1:{upstream.port}", model_api={**OTHERS, "routing": routing, "fallback": fallback}
        )
        down = {"name": "down", "provider": "openai", "base_url": "http://127.0.0.1:1", "api_keys": ["k"]}
        document["services"].append(down)
        async with running(document) as worker, connect(worker.port) as client:
            client.send(get(b"/v1/uploads").replace(b"GET", b"POST")[:-2] + b"Content-Length: %d\r\n\r\n" % len(body))
            client.send(body)
            assert (await client.answer()).status == status
            assert upstream.connections[0].bodies == [body]
            fields = await worker.fields()
            assert fields["sluiceway.service"] == "sim"
            assert "sluiceway.upstream_model" not in fields
