"""The models know the contract: every key, every default, and which keys have no feature yet."""

from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from proxy.config.file import parse
from proxy.config.model import ConsumerConfig, Document, ModelApiConfig, ServiceConfig
from tests.proxy.config.files import CONTRACT, ENVIRON, changed, complaints

RAW: dict[str, Any] = YAML(typ="safe", pure=True).load(CONTRACT)

# What the contract writes of entries whose lists are empty, or whose mappings are null, in the file above.
ENTRIES: dict[str, Any] = {
    "by_model": [{"match": "gpt-?", "service": "qwen", "model": "gpt-5"}],
    "by_weight": [{"service": "qwen", "weight": 20, "model": "qwen-max"}],
    "fallback": [{"service": "qwen", "model": None}],
    "prices": {"currency": "USD", "models": None},  # in a file of its own
    "models": [
        dict.fromkeys(
            ("match", "service", "input", "cached_input", "cache_write", "output", "reasoning", "image", "characters")
        )
        | {"second": None}
    ],
}

# Without a default, or written with one that does not show what the default is.
GIVEN = {
    ServiceConfig: {"name", "provider", "base_url", "api_keys"},
    ConsumerConfig: {"name", "keys", "labels"},
    ModelApiConfig: {"name", "scenario", "protocols", "routing"},
    Document: {"services", "consumers", "model_apis"},
}


def submodel(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(submodel, get_args(annotation))), None)


def test_the_contracts_file_is_good() -> None:
    assert complaints(CONTRACT) == []


def test_the_file_above_has_every_key() -> None:
    def compare(model: type[BaseModel], raw: Any, path: str) -> None:
        raw = raw or ENTRIES[path.rpartition(".")[2]]
        if isinstance(raw, list):
            raw = raw[0]
        assert set(model.model_fields) == set(raw), path
        for name, field in model.model_fields.items():
            inner = submodel(field.annotation)
            if inner is not None:
                compare(inner, raw[name], f"{path}.{name}")

    compare(Document, RAW, "")


def test_defaults_are_the_contracts() -> None:
    document = parse(CONTRACT, ENVIRON, "test")
    for part in (document, document.services[0], document.consumers[0], document.model_apis[0]):
        for name, field in type(part).model_fields.items():
            if name not in GIVEN[type(part)]:
                assert field.get_default(call_default_factory=True) == getattr(part, name), name


def test_an_empty_mapping_has_the_same_defaults() -> None:
    document = parse("{}", {}, "test")
    assert document == Document()
    assert (document.listen, document.workers, document.admin.listen) == ("127.0.0.1:8080", "auto", "127.0.0.1:9090")
    assert document.admin.token == ""


# path, a value that asks for the feature
NOT_BUILT = [
    ("state", "redis://localhost:6379/0"),
    ("services.0.provider", "comfyui"),
    ("model_apis.0.protocols.0", "comfyui"),
    ("model_apis.0.on_disconnect", "drain"),
]


@pytest.mark.parametrize(("path", "value"), NOT_BUILT, ids=[f"{path}={value}" for path, value in NOT_BUILT])
def test_a_key_without_a_feature_is_refused_when_set(path: str, value: Any) -> None:
    """... and accepted with its default, which test_the_contracts_file_is_good shows of all of them."""
    found = complaints(changed((path, value)))
    dotted = path.replace(".0", "[0]")
    assert [complaint.path for complaint in found if "not built yet" in complaint.wrong] == [dotted], found
    assert all(complaint.right for complaint in found)


# path, a value that differs from the default
BUILT = [
    ("redact", ["CUST-[0-9]{6}", "(?i)top secret"]),
    ("model_apis.0.monitoring.record_request", True),
    ("model_apis.0.monitoring.record_response", True),
    ("model_apis.0.monitoring.content_max_bytes", 1),
    ("model_apis.0.monitoring.content_max_bytes", 1_048_576),
    ("model_apis.0.monitoring.content_sample", 0.5),
    ("model_apis.0.monitoring.content_sample", 0),
    ("services.0.base_urls", {"openai": "https://example.com/v4"}),
    ("tracing.keep_errors", False),
    ("tracing.keep_slower_than_ms", 500),
    ("tracing.compat", ["langfuse", "openinference", "arms", "signoz"]),
    ("listen", "[::1]:0"),
    ("workers", 4),
    ("observers", 1),
    ("drain_delay_ms", 1),
    ("drain_timeout_ms", 1),
    ("admin.listen", "localhost:9091"),
    ("admin.token", "t"),
    ("admin.token", None),
    ("allow_open", True),
    ("trusted_proxies", ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::ffff:10.0.0.0/104"]),
    ("cors.origins", ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "app://local"]),
    ("cors.origins", ["*"]),
    ("state", "sqlite:/var/lib/sluiceway/state.db"),
    ("limits.max_connections", 1),
    ("limits.max_inflight_requests", 1),
    ("limits.max_head_bytes", 8192),
    ("limits.max_request_bytes", 1),
    ("spool_dir", "/nowhere/yet"),
    ("spool_dir", "."),
    ("limits.hold_memory_bytes", 0),
    ("limits.hold_disk_bytes", 0),
    ("limits.hold_response_bytes", 0),
    ("limits.max_held_memory_bytes", 0),
    ("limits.max_held_disk_bytes", 0),
    ("limits.head_timeout_ms", 0),
    ("limits.body_idle_timeout_ms", 1),
    ("limits.write_idle_timeout_ms", 1),
    ("limits.keepalive_timeout_ms", 1),
    ("services.0.provider", "openai"),
    ("services.0.base_url", None),
    ("services.0.api_keys", ["one", "two"]),
    ("services.0.cooldown.failures", 0),
    ("services.0.image_paths", {"qwen-*": "sync", "wan*": "async"}),
    ("services.0.cooldown.window_ms", 1),
    ("services.0.cooldown.base_ms", 0),
    ("services.0.cooldown.max_ms", 0),
    ("services.0.headers", {"X-Team": "a b"}),
    ("services.0.connect_timeout_ms", 1),
    ("services.0.idle_timeout_ms", 1),
    ("services.0.total_timeout_ms", 1),
    ("services.0.max_connections", 1),
    ("services.0.tls.insecure", True),
    ("services.0.egress_proxy", "http://team:secret@proxy:3128"),
    ("services.0.egress_proxy", "none"),
    ("services.0.propagate_trace", True),
    ("consumers.0.labels", {}),
    ("model_apis.0.protocols", ["openai", "dashscope"]),
    ("model_apis.0.resource_group", "research"),
    ("model_apis.0.labels", {"a": "b"}),
    ("model_apis.0.domains", ["AI.example.com", "*.example.com"]),
    ("model_apis.0.base_path", "/team-a/"),
    ("model_apis.0.strip_base_path", False),
    ("model_apis.0.auth", "open"),
    ("model_apis.0.auth", "passthrough"),
    ("model_apis.0.consumers", ["search-team"]),
    ("model_apis.0.routing.single.model", "qwen-max"),
    ("model_apis.0.routing", {"by_model": ENTRIES["by_model"]}),
    ("model_apis.0.routing", {"by_weight": ENTRIES["by_weight"]}),
    ("model_apis.0.routing", {"by_weight": [*ENTRIES["by_weight"], {"service": "qwen", "weight": 0}]}),
    ("model_apis.0.fallback", ENTRIES["fallback"] * 2),
    ("model_apis.0.fallback_on", []),
    ("model_apis.0.fallback_on", [400, 599]),
    ("model_apis.0.max_attempts", 1),
    ("model_apis.0.max_attempts", 64),
    ("model_apis.0.first_packet_timeout_ms", 1),
    ("model_apis.0.first_token_timeout_ms", 1),
    ("model_apis.0.include_usage", False),
    ("model_apis.0.max_request_bytes", 1),
    ("model_apis.0.max_inflight_requests", 1),
    ("model_apis.0.monitoring.metrics", False),
    ("model_apis.0.monitoring.logging", False),
    ("model_apis.0.monitoring.tracing", False),
]


@pytest.mark.parametrize(("path", "value"), BUILT, ids=[f"{path}={value}" for path, value in BUILT])
def test_a_key_with_a_feature_may_be_set(path: str, value: Any) -> None:
    assert complaints(changed((path, value))) == []


@pytest.mark.parametrize("balance", ["weighted", "least_inflight", "lowest_latency"])
def test_balance(balance: str) -> None:
    text = changed(("model_apis.0.routing", {"by_weight": ENTRIES["by_weight"]}), ("model_apis.0.balance", balance))
    assert parse(text, ENVIRON, "test").model_apis[0].balance == balance


def test_every_key_is_in_one_of_the_tables_above() -> None:
    def leaves(model: type[BaseModel], path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = submodel(field.annotation)
            step = ".0" if "list[" in str(field.annotation) else ""
            found += leaves(inner, f"{path}{name}{step}.") if inner else [f"{path}{name}"]
        return found

    told = {"model_apis.0.balance"} | {path for path, _ in NOT_BUILT} | {path for path, _ in BUILT}
    named = {"services.0.name", "consumers.0.name", "consumers.0.keys", "model_apis.0.name", "model_apis.0.scenario",
             "model_apis.0.routing.single.service", "tls.certificate", "tls.key",
             *(f"services.0.tls.{key}" for key in ("ca", "certificate", "key")),
             *(f"model_apis.0.routing.{way}.0.{key}" for way in ("by_model", "by_weight") for key in ENTRIES[way][0]),
             "prices.currency", *(f"prices.models.0.{key}" for key in ENTRIES["models"][0]),
             *(f"model_apis.0.fallback.0.{key}" for key in ENTRIES["fallback"][0])}  # fmt: skip
    assert set(leaves(Document, "")) - told == named


def test_reprs_show_no_secret() -> None:
    text = changed(
        ("admin.token", "tok-secret"),
        ("services.0.headers", {"x-secret": "hdr-secret"}),
        ("services.0.base_url", "https://host-secret.example"),
        ("services.0.egress_proxy", "http://team:proxy-secret@proxy.example"),
        ("consumers.0.keys", ["con-secret"]),
    )
    document = parse(text, {"DASHSCOPE_API_KEY": "key-secret"}, "test")
    assert document.services[0].api_keys == ["key-secret"]
    assert "-secret" not in repr(document)
    assert "-secret" not in str(document)


@pytest.mark.parametrize(
    "pattern",
    ["(", "(?=secret)", r"(a)\1", "x*", "", "(x{1000}){1000}", "a" * 1001],
    ids=["unbalanced", "look-ahead", "back reference", "may be empty", "empty", "too large", "too long"],
)
def test_an_expression_that_cannot_be_used_is_refused_and_not_repeated(pattern: str) -> None:
    (found,) = complaints(changed(("redact", ["fine", pattern])))
    assert found.path == "redact[1]"
    assert found.right
    assert len(pattern) < 3 or pattern not in found.wrong + found.right


def test_no_more_expressions_than_can_be_tried() -> None:
    (found,) = complaints(changed(("redact", ["fine"] * 101)))
    assert "at most 100" in found.right


def test_no_more_expressions_than_a_worker_can_say_at_once() -> None:
    (found,) = complaints(changed(("redact", ["\U0001f511" * 900] * 20)))
    assert "65536 for all" in found.right


@pytest.mark.parametrize("sample", [-0.1, 1.1, "0.5", True])
def test_a_sample_is_a_share(sample: Any) -> None:
    (found,) = complaints(changed(("model_apis.0.monitoring.content_sample", sample)))
    assert found.path == "model_apis[0].monitoring.content_sample"
