"""What a document compiles to."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from proxy.config.model import Document
from proxy.config.places import is_loopback, parse_base_url
from proxy.config.snapshot import Cooldown, Limits, Service, Single, Snapshot, Target
from proxy.config.targets import PLAIN_TLS
from proxy.config.values import digest_of_key
from proxy.providers import PROVIDERS
from tests.proxy.config.files import CONTRACT, ENVIRON, changed


def compiled(*changes: tuple[str, Any]) -> Snapshot:
    return compile_snapshot(parse(changed(*changes), ENVIRON, "test"), 3)


def service(**keys: Any) -> Service:
    return compiled(*((f"services.0.{key}", value) for key, value in keys.items())).services["qwen"]


def test_the_contracts_file() -> None:
    snapshot = compile_snapshot(parse(CONTRACT, ENVIRON, "test"), 3)
    assert snapshot.generation == 3
    qwen = snapshot.services["qwen"]
    assert (qwen.scheme, qwen.host, qwen.port) == ("https", "dashscope-intl.aliyuncs.com", 443)
    assert (qwen.host_header, qwen.path_prefix) == (b"dashscope-intl.aliyuncs.com", "")
    (key,) = qwen.keys
    assert key.name == "qwen/0"
    bearer = ((b"authorization", b"Bearer sk-dashscope"),)
    assert key.auth_headers == {
        "openai": bearer,
        "dashscope": bearer,
        "anthropic": ((b"x-api-key", b"sk-dashscope"),),
    }
    assert qwen.cooldown == Cooldown(failures=5, window_ms=30_000, base_ms=1000, max_ms=60_000)
    assert (qwen.connect_timeout_ms, qwen.idle_timeout_ms, qwen.total_timeout_ms) == (5000, 300_000, 0)
    assert (qwen.max_connections, qwen.propagate_trace) == (0, False)
    assert (qwen.tls, qwen.egress) == (PLAIN_TLS, None)
    (chat,) = snapshot.model_apis
    assert (chat.name, chat.scenario, chat.protocols, chat.auth) == ("chat", "text", ("openai",), "consumers")
    assert (chat.domains, chat.base_path, chat.consumers) == ((), "", None)
    assert (chat.max_request_bytes, chat.max_inflight_requests) == (536_870_912, None)
    assert chat.routing == Single(Target(qwen, None))
    assert (chat.targets, chat.fallback, chat.needs_model) == ((Target(qwen, None),), (), False)
    assert chat.fallback_on == {429, 500, 502, 503, 504, 529}
    assert (chat.max_attempts, chat.first_packet_timeout_ms, chat.first_token_timeout_ms) == (4, 0, 0)
    assert snapshot.spool_dir == "./.sluiceway/spool"
    assert (chat.metrics, chat.logging, chat.tracing, chat.include_usage) == (True, True, True, True)
    assert snapshot.consumers["search-team"].labels == {"team": "search"}


def test_limits_are_those_of_the_file() -> None:
    snapshot = compiled(("limits.max_head_bytes", 2048))
    assert snapshot.limits.max_head_bytes == 2048
    assert {field.name for field in fields(Limits)} == set(type(Document().limits).model_fields)


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot = compiled()
    with pytest.raises(FrozenInstanceError):
        snapshot.generation = 4  # type: ignore[misc]


def test_a_model_api_may_have_limits_of_its_own() -> None:
    (chat,) = compiled(
        ("model_apis.0.max_request_bytes", 10),
        ("model_apis.0.max_inflight_requests", 2),
        ("model_apis.0.consumers", ["search-team"]),
    ).model_apis
    assert (chat.max_request_bytes, chat.max_inflight_requests) == (10, 2)
    assert chat.consumers == frozenset({"search-team"})


@pytest.mark.parametrize(
    ("provider", "base_url", "host_header", "port", "prefix"),
    [
        ("dashscope", None, b"dashscope.aliyuncs.com", 443, ""),
        ("dashscope", "https://d.example/compatible-mode/v1", b"d.example", 443, ""),
        ("dashscope", "https://d.example/compatible-mode/v1/", b"d.example", 443, ""),
        ("dashscope", "https://d.example/api/v1", b"d.example", 443, ""),
        ("dashscope", "https://d.example/proxy/api/v1", b"d.example", 443, "/proxy"),
        ("openai", None, b"api.openai.com", 443, ""),
        ("openai", "https://API.openai.com:443/v1", b"api.openai.com", 443, ""),
        ("openai", "https://router.example/api/v1", b"router.example", 443, "/api"),
        ("openai", "https://d.example/compatible-mode/v1", b"d.example", 443, "/compatible-mode"),
        ("openai", "https://x.example/v1beta", b"x.example", 443, "/v1beta"),
        ("openai", "https://x.example/%41/v1", b"x.example", 443, "/%41"),
        ("vllm", "http://10.0.0.1:8000/v1", b"10.0.0.1:8000", 8000, ""),
        ("vllm", "http://[fd00::1]:80", b"[fd00::1]", 80, ""),
        ("vllm", "http://[fd00::1]:8000", b"[fd00::1]:8000", 8000, ""),
        ("vllm", "https://gpu_1.local:80", b"gpu_1.local:80", 80, ""),
    ],
)
def test_addresses(provider: str, base_url: str | None, host_header: bytes, port: int, prefix: str) -> None:
    made = service(provider=provider, base_url=base_url)
    assert (made.host_header, made.port, made.path_prefix) == (host_header, port, prefix)


def test_a_service_without_key_sends_none() -> None:
    made = service(provider="vllm", api_keys=[])
    assert [(key.name, key.auth_headers) for key in made.keys] == [
        ("qwen/0", {"openai": (), "vllm": (), "anthropic": ()})
    ]
    assert made.propagate_trace is True
    assert service(provider="vllm", propagate_trace=False).propagate_trace is False


def test_headers_of_a_service() -> None:
    assert service(headers={"X-Team": " a b "}).headers == ((b"x-team", b"a b"),)


def test_a_service_shows_no_secret() -> None:
    made = service(api_keys=["secret", "other-secret"], headers={"x-a": "secret"})
    assert "secret" not in repr(made)
    assert [repr(key) for key in made.keys] == ["Key(name='qwen/0')", "Key(name='qwen/1')"]


def test_every_key_of_a_service_in_its_order() -> None:
    made = service(api_keys=["a", "b"], cooldown={"failures": 1, "window_ms": 2, "base_ms": 3, "max_ms": 4})
    assert [(key.name, key.auth_headers["dashscope"]) for key in made.keys] == [
        ("qwen/0", ((b"authorization", b"Bearer a"),)),
        ("qwen/1", ((b"authorization", b"Bearer b"),)),
    ]
    assert made.cooldown == Cooldown(failures=1, window_ms=2, base_ms=3, max_ms=4)
    assert len({*made.keys}) == 2


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_callers_credential_is_written_as_the_provider_wants_it(name: str) -> None:
    provider = PROVIDERS[name]
    for protocol in provider.protocols:
        bare = (name, protocol) in {("dashscope", "anthropic"), ("anthropic", "anthropic")}
        written = (b"x-api-key", b"k") if bare else (b"authorization", b"Bearer k")
        assert provider.auth_headers("k", protocol) == (written,)
        assert provider.auth_headers(None, protocol) == provider.auth_headers("", protocol) == ()
    with pytest.raises(KeyError):
        provider.auth_headers("k", "comfyui")


def test_digests() -> None:
    assert digest_of_key("sha256:" + "0f" * 32) == b"\x0f" * 32
    assert digest_of_key("sha256:" + "0F" * 32) == b"\x0f" * 32
    assert len(digest_of_key("plain")) == 32


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.com:1", False),
    ],
)
def test_loopback(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) is loopback


def test_no_suffix_is_taken_from_the_middle_of_a_segment() -> None:
    assert parse_base_url("https://x/av1", ("/v1",)).path_prefix == "/av1"
