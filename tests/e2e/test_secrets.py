"""No secret is in anything that a gateway leaves behind.

Keys and passwords are sent wherever clients, upstreams and operators put them, with content recorded and everything
exported; then all that came out is searched: each line of stdout and stderr, spans, log records and metrics as a
collector got them, what control answers, the arguments of the processes, and the files of state, spool and runtime.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from tests.e2e.traffic import CHAT, Client, Got, head_of
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of
from tests.fakes.scripted import ReadRequest, Scripted, Send

KEY, SERVICE_KEY, SERVICE_HEADER = "consumer-secret-key", "service-secret-key", "service-header-secret"
ADMIN, PROXY, OTLP, PASSED = "admin-secret-token", "proxy-secret-password", "otlp-secret-token", "passed-secret-key"
OF_OURS = {
    "the consumer's key": KEY,
    "the service's key": SERVICE_KEY,
    "a header of the service's": SERVICE_HEADER,
    "the admin token": ADMIN,
    "the egress proxy's password": PROXY,
    "its credentials": base64.b64encode(f"team:{PROXY}".encode()).decode(),
    "the collector's header": OTLP,
    "a key that is passed on": PASSED,
    "a wrong admin token": "wrong-admin-secret",
}
HEADERS = {
    "authorization": "Bearer bearer-secret-0001",
    "x-api-key": "xapi-secret-0002",
    "api-key": "api-secret-0003",
    "proxy-authorization": "Basic proxyauth-secret-0004",
    "cookie": "session=cookie-secret-0005",
    "x-amz-security-token": "amz-secret-0006",
    "x-goog-api-key": "goog-secret-0007",
    "x-secret": "header-secret-0008",
    "baggage": "userid=baggage-secret-0009",
    "referer": "https://x.example/?token=referer-secret-0010",
}
QUERY = {
    "key": "query-secret-0101",
    "api_key": "query-secret-0102",
    "access_token": "query-secret-0103",
    "X-Amz-Signature": "query-secret-0104",
    "X-Amz-Credential": "query-secret-0105",
    "sig": "query-secret-0106",
    "OSSAccessKeyId": "query-secret-0107",
}
BODY = {
    "a key": "sk-proj-abcdefghijklmnop",
    "a bearer token": "tok.en-0123456789",
    "a password": "hunter2hunter2",
    "an e-mail address": "jane.doe@mail.example",
    "a card": "4111 1111 1111 1111",
    "a phone number": "+49 30 12345678",
    "one of our own": "CUST-654321",
    "tool arguments": "args-secret-0123456789",
    "a field of a name": "field-secret-0123456789",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Alibaba": "LTAI5tExampleExample",
    "GitHub": "ghp_0123456789abcdefghij",
    "a JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "a link": "signature-0123456789",
    "a password in a link": "linkpass-0123456789",
    "across two deltas": "sk-delta-abcdefghijklmnop",
    "a private key": "MIIEvSecretSecretSecretSecret",
}
HEADS = {"a target": "target-secret-0201", "a broken head": "broken-secret-0202"}
SECRETS = {**OF_OURS, **HEADERS, **QUERY, **BODY, **HEADS}
SOUND = "what lifts a boat"
"""Said in every question and answer; it is to be found, else nothing was recorded and the rest shows nothing."""


def found_in(name: str, data: bytes) -> list[str]:
    """Which secrets are there, as they are or encoded as in a URL or for HTTP's basic authentication."""
    found = []
    for kind, secret in SECRETS.items():
        value = secret.removeprefix("Bearer ").removeprefix("Basic ").rpartition("=")[2] or secret
        spellings = {value, quote(value), base64.b64encode(value.encode()).decode().rstrip("=")}
        found += [f"{kind} in {name}" for text in spellings if text.encode() in data]
    return found


def question(**more: Any) -> bytes:
    said = (
        f"{SOUND}? my key is {BODY['a key']}, Authorization: Bearer {BODY['a bearer token']}, "
        f"password={BODY['a password']}, write to {BODY['an e-mail address']} or call {BODY['a phone number']}, "
        f"card {BODY['a card']}, customer {BODY['one of our own']}, {BODY['AWS']}, {BODY['Alibaba']}, "
        f"{BODY['GitHub']}, {BODY['a JWT']}, https://x.example/a.png?Expires=1&Signature={BODY['a link']}, "
        f"https://me:{BODY['a password in a link']}@x.example/, "
        f"-----BEGIN PRIVATE KEY-----\n{BODY['a private key']}\n-----END PRIVATE KEY-----"
    )
    call = {"name": "f", "arguments": json.dumps({"api_key": BODY["tool arguments"]})}
    messages = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "function": call}]},
    ]
    about = {"secret": BODY["a field of a name"]}
    return json.dumps({"messages": messages, "model": "m", "metadata": about, **more}).encode()


REPEATED = f"{SOUND}: {SERVICE_KEY} and {KEY}, you said {question().decode()}"


def answer(status: int, body: bytes, content_type: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 %d Said\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (status, content_type, len(body))
    echo = b"Set-Cookie: session=%b\r\nx-echo: Bearer %b\r\n\r\n" % (SERVICE_KEY.encode(), SERVICE_KEY.encode())
    return head + echo + body


def answers() -> list[bytes]:
    """Each repeats what it was sent: a stream, a plain answer, errors as JSON, as a page, with 200, and in a stream."""
    half = len(BODY["across two deltas"]) // 2
    parts = (SOUND, " ", BODY["across two deltas"][:half], BODY["across two deltas"][half:], " and ", REPEATED)
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in parts]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    error = {"error": {"message": f"key {SERVICE_KEY} is wrong; {REPEATED}", "code": "bad_key"}}
    plain = {"choices": [{"message": {"content": REPEATED}, "finish_reason": "stop"}]}
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in (*deltas, last))
    broken = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in (*deltas, error))
    sse = b"text/event-stream"
    return [
        answer(200, stream + b"data: [DONE]\n\n", sse),
        answer(200, json.dumps(plain).encode()),
        answer(401, json.dumps(error).encode()),
        answer(502, f"<html>{REPEATED}</html>".encode(), b"text/html"),
        answer(401, json.dumps({"error": {"message": "no", "code": f"wrong key: {SERVICE_KEY}"}}).encode()),
        answer(200, json.dumps(error).encode()),
        answer(200, broken, sse),
        *[answer(401, json.dumps({"error": {"message": f"{PASSED} is wrong", "code": "bad_key"}}).encode())] * 2,
    ]


def document_of(upstream: str, proxy: int, folder: Path) -> dict[str, Any]:
    """With all that is secret in the environment, or a file of its own, as the documentation says."""
    (folder / "key").write_text(SERVICE_KEY + "\n")
    monitoring = {"record_request": True, "record_response": True}
    shared = {"scenario": "text", "protocols": ["openai"], "monitoring": monitoring}
    egress = f"http://team:${{PROXY_PASSWORD}}@127.0.0.1:{proxy}"
    service = {"provider": "openai", "base_url": upstream, "api_keys": [f"file:{folder}/key"]}
    return {
        "services": [
            {**service, "name": "sim", "headers": {"x-service-token": "${SERVICE_HEADER}"}},
            {**service, "name": "behind", "egress_proxy": egress},
        ],
        "consumers": [{"name": "team", "keys": ["${CONSUMER_KEY}"]}],
        "redact": ["CUST-[0-9]{6}"],
        "spool_dir": f"{folder}/spool",
        "limits": {"hold_memory_bytes": 65536},
        "model_apis": [
            {**shared, "name": "chat", "routing": {"single": {"service": "sim"}}},
            {**shared, "name": "behind", "base_path": "/behind", "routing": {"single": {"service": "behind"}}},
            {
                **shared,
                "name": "passed",
                "base_path": "/passed",
                "auth": "passthrough",
                "routing": {"by_model": [{"match": "m", "service": "sim"}]},
                "fallback": [{"service": "sim"}],
            },
        ],
    }


ENVIRON = {
    "CONSUMER_KEY": KEY,
    "SERVICE_HEADER": SERVICE_HEADER,
    "PROXY_PASSWORD": PROXY,
    "ADMIN_TOKEN": ADMIN,
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{OTLP},x-collector-key={OTLP}",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_AND_EVENT",
    "OTEL_METRIC_EXPORT_INTERVAL": "100",
}
REFUSED = 'HTTP/1.1 407 {0}\r\nProxy-Authenticate: Basic realm="{0}"\r\nContent-Length: 0\r\n\r\n'


class Traffic:
    """Asks, one request on each connection, and counts the records that there must be."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.records = 0

    async def send(self, data: bytes) -> Got:
        """These bytes, and what came of them."""
        client = await Client.to(self._gateway.port)
        self.records += 1
        try:
            await client.send(data)
            return await client.receive(Got())
        finally:
            client.leave()

    async def ask(self, path: str = CHAT, key: str = KEY, body: bytes | None = None, **headers: str) -> Got:
        """A question with every secret that a query and a body can have."""
        body = question() if body is None else body
        query = "&".join(f"{name}={value}" for name, value in QUERY.items())
        return await self.send(head_of(f"{path}?{query}", "asked", len(body), key=key, **headers) + body)


def with_header(name: str, value: str) -> bytes:
    """A request whose only credential, or other secret, is in that header."""
    body = question()
    lines = (f"POST {CHAT} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, f"{name}: {value}", "", "")).encode() + body


BROKEN_HEADS = (
    b"POST /v1/chat?key=broken-secret-0202 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer broken-secret-0202\x00\r\n\r\n",
    b"broken-secret-0202 / HTTP/1.1 broken-secret-0202\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization : broken-secret-0202\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: broken-secret-0202\r\n\r\n",
)


async def drive(traffic: Traffic) -> None:
    """All of it."""
    assert (await traffic.ask()).status == 200  # a stream, whatever was asked
    assert [(await traffic.ask()).status for _ in range(6)] == [200, 401, 502, 401, 200, 200]
    assert (await traffic.ask("/passed" + CHAT, PASSED)).status == 401
    large = question(padding="x" * 300_000)
    assert (await traffic.ask("/passed" + CHAT, PASSED, large)).status == 401  # held on disk, for the fallback
    assert (await traffic.ask("/behind" + CHAT)).status == 502
    assert (await traffic.ask("/nowhere")).status == 404
    for name, value in HEADERS.items():
        assert (await traffic.send(with_header(name, value))).status == 401
        if name not in ("authorization", "x-api-key", "api-key"):
            await traffic.ask(**{name.replace("-", "_"): value})
    body = question()
    target = f"http://me:target-secret-0201@x.example{CHAT}?key=target-secret-0201"
    await traffic.send(head_of(target, "absolute", len(body), key=KEY) + body)
    for head in BROKEN_HEADS:
        assert (await traffic.send(head)).status == 400


async def looked_at(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    """What control answers: to who has the token, to who has a wrong one, and to who has none."""
    found = []
    async with aiohttp.ClientSession() as session:
        for token in (ADMIN, "wrong-admin-secret", ""):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            for path in ("/metrics", "/readyz", "/healthz", "/", "/api/v1/config", f"/nowhere?token={ADMIN}"):
                async with session.get(gateway.admin_url + path, headers=headers) as response:
                    said = str(dict(response.headers)).encode() + await response.read()
                    found.append((f"control's {path.partition('?')[0]}", said))
    return iter(found)


def of_processes(gateway: Gateway, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Arguments, and files: the configuration has none of them in it, so it is looked at as the others are."""
    runtime = folder
    for module in ("proxy.control", "proxy.worker", "observability.observer"):
        for pid in gateway.pids(module):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            runtime = Path(arguments.split(b"--runtime\0")[1].partition(b"\0")[0].decode())
            yield f"the arguments of {module}", arguments
    for root in (folder, runtime):
        for path in root.rglob("*"):
            if path.is_file() and path.name != "key":
                yield str(path), path.read_bytes()


def exported(sink: OtlpSink) -> Iterator[tuple[str, bytes]]:
    """Spans with their resource, log records, metrics."""
    for message in sink.messages:
        yield "spans", message.SerializeToString()
    for record in sink.logs:
        yield "an event", record.SerializeToString()
    for metrics in sink.metrics:
        yield "metrics", metrics.SerializeToString()


async def test_no_secret_is_in_anything_that_is_left_behind(tmp_path: Path) -> None:
    steps = [step for said in [*answers(), *[answer(200, b"{}")] * 40] for step in (ReadRequest(), Send(said))]
    refusal = REFUSED.format(PROXY).encode()
    with OtlpSink() as sink:
        environ = {**ENVIRON, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        async with Scripted(*steps) as upstream, Scripted(ReadRequest(), Send(refusal)) as proxy:
            document = document_of(f"http://127.0.0.1:{upstream.port}", proxy.port, tmp_path)
            async with Gateway.serving(document, tmp_path, environ=environ, token="${ADMIN_TOKEN}") as gateway:
                traffic = Traffic(gateway)
                await drive(traffic)
                lines = await gateway.records(traffic.records)
                await sink.until(lambda: bool(sink.logs and sink.metrics))
                left = [*await looked_at(gateway), *of_processes(gateway, tmp_path)]
            received = b"".join(upstream.heads + proxy.heads)
    sent = (SERVICE_KEY, SERVICE_HEADER, PASSED, OF_OURS["its credentials"], *QUERY.values())
    assert [one for one in sent if one.encode() not in received] == []  # they were in use
    assert {headers["authorization"] for headers in sink.headers} == {f"Bearer {OTLP}"}
    assert len(lines) == traffic.records == len(gateway.records_so_far())
    for recorded in (lines[0], attributes_of(sink.logs[0])):
        assert SOUND in str(recorded["gen_ai.input.messages"])
        assert SOUND in str(recorded["gen_ai.output.messages"])
    left += [("a line", orjson.dumps(line)) for line in gateway.lines.all]
    left += [("a line that is none", line) for line in gateway.lines.other] + [("stderr", bytes(gateway.errors))]
    left += exported(sink)
    kinds = {name for name, _ in left}
    assert kinds >= {"a line", "spans", "an event", "metrics", "control's /metrics"}
    assert sorted({found for name, data in left for found in found_in(name, data)}) == []
    assert gateway.complaints() == []


WRONG_FILES: tuple[dict[str, Any], ...] = (
    {"servces": [{"name": "sim", "api_keys": ["config-secret-0301"]}]},
    {
        "services": [
            {"name": "sim", "provider": "openai", "api_keys": "config-secret-0302", "apikeys": ["x-secret-0303"]}
        ]
    },
    {
        "services": [
            {"name": "sim", "provider": "openai", "api_keys": [{"key": "config-secret-0304"}, ["x-secret-0305"]]}
        ]
    },
    {"services": [{"name": "sim", "provider": "openai", "base_url": "https://me:config-secret-0306@x.test"}]},
    {"services": [{"name": "sim", "provider": "openai", "headers": {"x-key": ["config-secret-0307"]}}]},
    {"services": [{"name": "sim", "provider": "openai", "egress_proxy": "socks5://me:config-secret-0308@x.test:1"}]},
    {
        "consumers": [
            {"name": "team", "keys": ["config-secret-0309", "config-secret-0309"]},
            {"keys": ["x-secret-0310"]},
        ]
    },
    {"consumers": [{"name": "team", "keys": ["sha256:config-secret-0311"]}, {"name": "team", "keys": "x-secret-0312"}]},
    {"admin": {"listen": "127.0.0.1:1", "token": ["config-secret-0313"]}},
    {"consumers": [{"name": "team", "keys": ["${CONSUMER_KEY} and config-secret-0314 and \u0001"]}]},
)
"""Each wrong where a secret stands."""


async def test_no_secret_is_in_what_is_said_of_trouble(tmp_path: Path) -> None:
    """Files that are refused, collectors that are not there or refuse, and variables that nobody understands."""
    secrets = [f"{kind}-secret-03{number:02}" for kind in ("config", "x") for number in range(1, 15)] + [OTLP, PROXY]
    with OtlpSink() as sink:
        sink.status = 401
        environ = {
            **ENVIRON,
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint.replace("//", f"//me:{OTLP}@"),
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://me:{OTLP}@127.0.0.1:9/v1/metrics",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "0.1",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": f"{OTLP} without a name",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization Bearer {OTLP}",
            "HTTPS_PROXY": f"http://team:{PROXY}@127.0.0.1:9",
        }
        async with Scripted(*(ReadRequest(), Send(answer(200, b"{}"))) * 9) as upstream:
            document = document_of(f"http://127.0.0.1:{upstream.port}", 9, tmp_path)
            async with Gateway.serving(document, tmp_path, environ=environ, token="${ADMIN_TOKEN}") as gateway:
                traffic = Traffic(gateway)
                assert (await traffic.ask()).status == 200
                assert (await traffic.ask("/behind" + CHAT)).status == 502
                await gateway.lines.wait("spans_not_delivered")
                await gateway.lines.wait("metrics_not_delivered")
                left = []
                good = orjson.loads(gateway.file.read_bytes())
                for number, wrong in enumerate(WRONG_FILES, 1):
                    gateway.file.write_bytes(orjson.dumps({**good, **wrong}))
                    await gateway.lines.wait("configuration_refused", number)
                    left += await looked_at(gateway)
        assert sink.requests
    left += [("a line", orjson.dumps(line)) for line in gateway.lines.all] + [("stderr", bytes(gateway.errors))]
    assert sorted({f"{one} in {name}" for name, data in left for one in secrets if one.encode() in data}) == []
    assert gateway.lines.other == []
