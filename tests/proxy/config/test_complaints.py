"""Every complaint: where, what is wrong, what would be right. All of a file at once, and no secret in any."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest

from proxy.config.complaints import Complaint
from tests.proxy.config.files import CONTRACT, changed, complaints

API: dict[str, Any] = {
    "name": "second",
    "scenario": "text",
    "protocols": ["openai"],
    "base_path": "/second",
    "routing": {"single": {"service": "qwen"}},
}
TARGET: dict[str, Any] = {"service": "qwen"}
BY_MODEL = [TARGET | {"match": "qwen-*"}]
BY_WEIGHT = [TARGET | {"weight": 1}]
BASES: dict[str, Any] = {
    "name": "two",
    "provider": "vllm",
    "base_urls": {"openai": "http://127.0.0.1:8000", "vllm": "http://127.0.0.1:8001"},
}
SERVICE: dict[str, Any] = {"name": "second", "provider": "vllm", "base_url": "http://127.0.0.1:8000"}
KEYLESS: dict[str, Any] = {"name": "gpt", "provider": "openai"}
CONSUMER: dict[str, Any] = {"name": "second", "keys": ["k2"]}

Case = tuple[list[tuple[str, Any]], str, str, str]

# changes to the contract's file, path of the complaint, words of what is wrong, words of what would be right
VALUES: list[Case] = [
    ([("lisen", "x")], "lisen", "unknown", "did you mean listen?"),
    ([("wokers", 2)], "wokers", "unknown", "did you mean workers?"),
    ([("zzz", 1)], "zzz", "unknown", "use one of listen, tls, workers"),
    ([("limits.max_head_byte", 1)], "limits.max_head_byte", "unknown", "did you mean max_head_bytes?"),
    ([("services.0.api_key", "x")], "services[0].api_key", "unknown", "did you mean api_keys?"),
    ([("services.0.tls.cas", "x")], "services[0].tls.cas", "unknown", "did you mean ca?"),
    ([("model_apis.0.routing.singel", {})], "model_apis[0].routing.singel", "unknown", "did you mean single?"),
    ([("model_apis.0.monitoring.trace", True)], "model_apis[0].monitoring.trace", "unknown", "did you mean tracing?"),
    ([("tls.certificate", "")], "tls.certificate", "'' is no file", "name a readable file"),
    ([("tls.certificate", "/nowhere/cert.pem")], "tls.certificate", "cannot be read (No such file", "a readable file"),
    ([("tls.certificate", "/")], "tls.certificate", "'/' is no file", "name a readable file"),
    ([("tls.key", "/nowhere/key.pem")], "tls.certificate", "is missing, and tls.key is there", "name the certificate"),
    ([("trusted_proxies", ["proxy.example.com"])], "trusted_proxies[0]", "is no network", "10.0.0.0/8"),
    ([("trusted_proxies", ["::1", "10.1.0.0/8"])], "trusted_proxies[1]", "'10.1.0.0/8' is no", "network: 10.0.0.0/8"),
    ([("trusted_proxies", ["10.0.0.0/8"] * 1001)], "trusted_proxies", "has 1001 entries", "at most 1000"),
    ([("trusted_proxies", "10.0.0.0/8")], "trusted_proxies", "is not possible", "a list is expected"),
    ([("cors.origins", ["app.example.com"])], "cors.origins[0]", "is no origin", "https://app.example.com"),
    ([("cors.origins", ["https://a.example/"])], "cors.origins[0]", "is no origin", "without a path"),
    ([("cors.origins", ["https://A.example"])], "cors.origins[0]", "is no origin", "in lower case"),
    ([("cors.origins", ["https://*.example.com"])], "cors.origins[0]", "is no origin", "scheme, host and port"),
    ([("cors.origins", ["https://a.example:65536"])], "cors.origins[0]", "is no origin", "scheme, host and port"),
    ([("cors.origins", ["https://a.example:443"])], "cors.origins[0]", "is never sent", "port out: https://a.example"),
    ([("cors.origins", ["http://a.example:80"])], "cors.origins[0]", "is never sent", "port out: http://a.example"),
    ([("cors.origins", ["null"])], "cors.origins[0]", "'null' is no origin", "scheme, host and port"),
    ([("listen", "8080")], "listen", "'8080' is no address", "127.0.0.1:8080"),
    ([("listen", "::1:8080")], "listen", "no address", "[::1]:8080"),
    ([("listen", "127.0.0.1:70000")], "listen", "no address", "HOST:PORT"),
    ([("listen", 8080)], "listen", "8080 is only a port", "127.0.0.1:8080"),
    ([("listen", 80800)], "listen", "80800 is not possible", "text is expected"),
    ([("listen", ":8080")], "listen", "':8080' is no address", "127.0.0.1:8080"),
    ([("listen", "a..b:80")], "listen", "no address", "HOST:PORT"),
    ([("listen", "a" * 64 + ":80")], "listen", "no address", "HOST:PORT"),
    ([("admin.listen", 9090)], "admin.listen", "9090 is only a port", "127.0.0.1:9090"),
    ([("admin.listen", "x")], "admin.listen", "no address", "HOST:PORT"),
    ([("admin", "x")], "admin", "'x' is not possible", "a mapping is expected"),
    ([("workers", 0)], "workers", "0 is not possible", "auto, or a number from 1 to 1024"),
    ([("workers", "Auto")], "workers", "'Auto' is not possible", "use auto"),
    ([("workers", "4")], "workers", "'4' is not possible", "without quotes: 4"),
    ([("observers", 1.5)], "observers", "1.5 is not possible", "use auto"),
    ([("observers", True)], "observers", "true is not possible", "use auto"),
    ([("drain_delay_ms", -1)], "drain_delay_ms", "-1 is out of range", "at least 0"),
    ([("drain_timeout_ms", 10**9)], "drain_timeout_ms", "out of range", "at most 86400000"),
    ([("drain_delay_ms", "10s")], "drain_delay_ms", "'10s' is not possible", "expected, in milliseconds: 10000"),
    ([("drain_delay_ms", "1.5 s")], "drain_delay_ms", "'1.5 s' is not possible", "milliseconds: 1500"),
    ([("drain_delay_ms", "250ms")], "drain_delay_ms", "'250ms' is not possible", "milliseconds: 250"),
    ([("drain_delay_ms", "2min")], "drain_delay_ms", "'2min' is not possible", "milliseconds: 120000"),
    ([("drain_delay_ms", "250")], "drain_delay_ms", "'250' is not possible", "without quotes: 250"),
    ([("drain_delay_ms", "2MB")], "drain_delay_ms", "'2MB' is not possible", "a whole number is expected"),
    ([("drain_delay_ms", "soon")], "drain_delay_ms", "'soon' is not possible", "a whole number is expected"),
    ([("limits.max_request_bytes", "10MB")], "limits.max_request_bytes", "'10MB'", "bytes: 10485760"),
    ([("limits.max_request_bytes", "64 KiB")], "limits.max_request_bytes", "'64 KiB'", "bytes: 65536"),
    ([("limits.max_request_bytes", "1g")], "limits.max_request_bytes", "'1g'", "bytes: 1073741824"),
    ([("limits.max_connections", "10k")], "limits.max_connections", "'10k'", "a whole number is expected"),
    ([("allow_open", "yes")], "allow_open", "'yes' is not possible", "true or false is expected, without quotes: true"),
    ([("allow_open", "False")], "allow_open", "'False' is not possible", "without quotes: false"),
    ([("state", "./state.db")], "state", "is no state", "sqlite:PATH"),
    ([("state", "sqlite:")], "state", "is no state", "sqlite:PATH"),
    ([("limits.max_connections", 0)], "limits.max_connections", "0 is out of range", "at least 1"),
    ([("limits.max_head_bytes", 10)], "limits.max_head_bytes", "10 is out of range", "at least 1024"),
    ([("limits", [1])], "limits", "a list is not possible", "a mapping is expected"),
    ([("services", {"a": 1})], "services", "a mapping is not possible", "a list is expected"),
    ([("services.0.name", "a b")], "services[0].name", "'a b' is no name", "1 to 64 letters, digits, _ and -"),
    ([("services.0.name", "x" * 65)], "services[0].name", "is no name", "1 to 64"),
    ([("services.0.name", "")], "services[0].name", "is no name", "1 to 64"),
    ([("services.0.provider", "dashscop")], "services[0].provider", "'dashscop' is unknown", "did you mean dashscope?"),
    ([("services.0.provider", "zzz")], "services[0].provider", "unknown", "one of dashscope, openai, anthropic, vllm"),
    ([("services.0.provider", "anthropics")], "services[0].provider", "unknown", "did you mean anthropic?"),
    ([("services.0.base_url", "example.com")], "services[0].base_url", "http:// or https://", "https://api.example"),
    ([("services.0.base_url", "ftp://x")], "services[0].base_url", "http:// or https://", "scheme, host"),
    ([("services.0.base_url", "https://u:hidden@x")], "services[0].base_url", "user name or password", "api_keys"),
    ([("services.0.base_url", "https://x/?a=hidden")], "services[0].base_url", "query", "scheme, host"),
    ([("services.0.base_url", "https://x:0")], "services[0].base_url", "host and port", "scheme, host"),
    ([("services.0.base_url", "https://x:99999")], "services[0].base_url", "no URL", "scheme, host"),
    ([("services.0.base_url", "https:///v1")], "services[0].base_url", "host and port", "scheme, host"),
    ([("services.0.base_url", "https://bücher.example")], "services[0].base_url", "host and port", "xn--"),
    ([("services.0.base_url", "https://a..b")], "services[0].base_url", "host and port", "1 to 63 characters"),
    ([("services.0.base_url", "https://.b")], "services[0].base_url", "host and port", "1 to 63 characters"),
    ([("services.0.base_url", "https://" + "a" * 64 + ".b")], "services[0].base_url", "host", "1 to 63 characters"),
    ([("services.0.base_url", "https://" + "a." * 127 + "b")], "services[0].base_url", "host", "1 to 63 characters"),
    ([("services.0.base_url", "https://x/v1/chat/completions")], "services[0].base_url",
     "path of one call, /chat/completions", "leave that out"),
    ([("services.0.base_url", "https://x/p/v2/completions/")], "services[0].base_url", "one call", "leave that out"),
    ([("services.0.base_url", "https://x/compatible-mode/v1/embeddings")], "services[0].base_url", "one call", "leave"),
    ([("services.0.base_url", "https://x/api/v1/services/aigc/text-generation/generation")], "services[0].base_url",
     "one call, /services/aigc/text-generation/generation", "leave that out"),
    ([("services.0.base_urls", {"opnai": "https://x"})], "services[0].base_urls.opnai", "unknown", "mean openai?"),
    ([("services.0.base_urls", {"openai": "x"})], "services[0].base_urls.openai", "http:// or https://", "scheme"),
    ([("services.0.base_urls", {"anthropic": "https://x/v1/messages"})], "services[0].base_urls.anthropic", "one call",
     "leave that out"),
    ([("services.0.base_url", "https://x/a b")], "services[0].base_url", "path of the URL", "percent-encoded"),
    ([("services.0.base_url", "https://x/a/../b")], "services[0].base_url", "path of the URL", "dot segments"),
    ([("services.0.api_keys", "hidden")], "services[0].api_keys", "not shown", "a list is expected"),
    ([("services.0.api_keys", [""])], "services[0].api_keys[0]", "empty", "variable"),
    ([("services.0.api_keys", ["a hidden"])], "services[0].api_keys[0]", "cannot stand in a header", "ASCII"),
    ([("services.0.api_keys", ["a\r\nx: hidden"])], "services[0].api_keys[0]", "cannot stand in a header", "ASCII"),
    ([("services.0.headers", {"Host": "x"})], "services[0].headers.Host", "gateway itself writes host", "leave it out"),
    ([("services.0.headers", {"a b": "x"})], "services[0].headers.a b", "is no header name", "letters"),
    ([("services.0.headers", {"X-Sluiceway-A": "x"})], "services[0].headers.X-Sluiceway-A", "itself writes", "leave"),
    ([("services.0.headers", {"a": "x\nhidden"})], "services[0].headers.a", "cannot stand in a header", "one line"),
    ([("services.0.headers", {"a": 1})], "services[0].headers.a", "not shown", "in quotes"),
    ([("services.0.headers", {"X-A": "1", "b": "2", "x-a": "hidden"})], "services[0].headers", "X-A' and 'x-a' are one",
     "keep one"),
    ([("services.0.tls.ca", "/nonexistent.pem")], "services[0].tls.ca", "No such file", "PEM certificates"),
    ([("services.0.tls.ca", __file__)], "services[0].tls.ca", "holds no PEM", "PEM certificates"),
    ([("services.0.tls.certificate", "/nonexistent.pem")], "services[0].tls.certificate", "No such file", "PEM file"),
    ([("services.0.tls.certificate", __file__)], "services[0].tls.certificate", "no PEM certificate", "PEM file"),
    ([("services.0.tls.key", "/dev/zero")], "services[0].tls.key", "more than 4194304 bytes", "the private key"),
    ([("services.0.egress_proxy", "socks5://hidden:1080")], "services[0].egress_proxy", "not begin with http://",
     "write http://HOST:PORT"),
    ([("services.0.egress_proxy", "https://hidden:3128")], "services[0].egress_proxy", "not begin with http://", "TLS"),
    ([("services.0.egress_proxy", "hidden:3128")], "services[0].egress_proxy", "not begin with http://", "HOST:PORT"),
    ([("services.0.egress_proxy", "http://hidden:3128/path")], "services[0].egress_proxy", "more or less", "HOST:PORT"),
    ([("services.0.egress_proxy", "http://:3128")], "services[0].egress_proxy", "more or less", "HOST:PORT"),
    ([("services.0.egress_proxy", "http://hidden:99999")], "services[0].egress_proxy", "no URL", "HOST:PORT"),
    ([("services.0.egress_proxy", "http://:hidden@proxy:1")], "services[0].egress_proxy", "user name or", "PASSWORD@"),
    ([("services.0.egress_proxy", "http://hi%0Adden:x@proxy:1")], "services[0].egress_proxy", "cannot be", "PASSWORD@"),
    ([("services.0.egress_proxy", "off")], "services[0].egress_proxy", "no proxy", "none for none at all"),
    ([("services.0.egress_proxy", "file:/nonexistent")], "services[0].egress_proxy", "No such file", "readable file"),
    ([("services.0.max_connections", -1)], "services[0].max_connections", "out of range", "at least 0"),
    ([("services.0.propagate_trace", "no")], "services[0].propagate_trace", "'no'", "true or false"),
    ([("consumers.0.keys", ["sha256:hidden"])], "consumers[0].keys[0]", "64 hexadecimal", "sha256sum"),
    ([("consumers.0.keys", [12345678])], "consumers[0].keys[0]", "not shown", "in quotes"),
    ([("consumers.0.labels", {"a": 1})], "consumers[0].labels.a", "1 is not possible", "in quotes"),
    ([("model_apis.0.scenario", "texts")], "model_apis[0].scenario", "unknown", "did you mean text?"),
    ([("model_apis.0.protocols", ["opnai"])], "model_apis[0].protocols[0]", "unknown", "did you mean openai?"),
    ([("model_apis.0.scenario", "videos")], "model_apis[0].scenario", "unknown", "did you mean video?"),
    ([("model_apis.0.protocols", ["comfy"])], "model_apis[0].protocols[0]", "unknown",
     "one of openai, anthropic, dashscope, vllm"),
    ([("model_apis.0.auth", "consumer")], "model_apis[0].auth", "unknown", "did you mean consumers?"),
    ([("model_apis.0.on_disconnect", "go")], "model_apis[0].on_disconnect", "unknown", "use cancel"),
    ([("model_apis.0.domains", ["a.com:80"])], "model_apis[0].domains[0]", "no domain", "without port"),
    ([("model_apis.0.domains", ["*"])], "model_apis[0].domains[0]", "no domain", "leave the list empty"),
    ([("model_apis.0.domains", ["a.*.com"])], "model_apis[0].domains[0]", "no domain", "*.example.com"),
    ([("model_apis.0.base_path", "api")], "model_apis[0].base_path", "no base path", "begin it with a slash"),
    ([("model_apis.0.base_path", "/a//b")], "model_apis[0].base_path", "no base path", "empty"),
    ([("model_apis.0.base_path", "/a/%2e%2E/b")], "model_apis[0].base_path", "no base path", "dot segments"),
    ([("model_apis.0.base_path", "/a?b")], "model_apis[0].base_path", "no base path", "query"),
    ([("model_apis.0.base_path", "/-/x")], "model_apis[0].base_path", "gateway's own", "another"),
    ([("model_apis.0.max_request_bytes", 0)], "model_apis[0].max_request_bytes", "out of range", "at least 1"),
    ([("model_apis.0.max_inflight_requests", "5")], "model_apis[0].max_inflight_requests", "'5'", "whole number"),
    ([("model_apis.0.routing", TARGET)], "model_apis[0].routing", "names a service",
     "write routing: {single: {service: qwen}}"),
    ([("model_apis.0.routing", "qwen")], "model_apis[0].routing", "names a service", "{single: {service: qwen}}"),
    ([("model_apis.0.routing", TARGET | {"model": "qwen2.5"})], "model_apis[0].routing", "names a service",
     "write routing: {single: {service: qwen, model: qwen2.5}}"),
    ([("model_apis.0.routing", {"service": "a: b"})], "model_apis[0].routing", "names a service", "{service: SERVICE}"),
    ([("model_apis.0.routing.by_modle", BY_MODEL)], "model_apis[0].routing.by_modle", "unknown", "mean by_model?"),
    ([("model_apis.0.routing", {"by_model": BY_MODEL[0]})], "model_apis[0].routing.by_model",
     "a mapping is not possible", "a list is expected"),
    ([("model_apis.0.routing", {"by_model": [BY_MODEL[0] | {"modle": "m"}]})],
     "model_apis[0].routing.by_model[0].modle", "unknown", "did you mean model?"),
    ([("model_apis.0.routing", {"by_model": [TARGET]})], "model_apis[0].routing.by_model[0].match", "missing", "given"),
    ([("model_apis.0.routing", {"by_model": [TARGET | {"match": ""}]})], "model_apis[0].routing.by_model[0].match",
     "pattern is empty", "? and *"),
    ([("model_apis.0.routing", {"by_model": [TARGET | {"match": "x" * 257}]})],
     "model_apis[0].routing.by_model[0].match", "no name of a model", "at most 256"),
    ([("model_apis.0.routing", {"by_model": [TARGET | {"match": 4}]})], "model_apis[0].routing.by_model[0].match",
     "4 is not possible", "in quotes"),
    ([("model_apis.0.routing", {"by_model": BY_MODEL * 1001})], "model_apis[0].routing.by_model",
     "1001 entries", "at most 1000"),
    ([("model_apis.0.routing", {"by_weight": [TARGET]})], "model_apis[0].routing.by_weight[0].weight",
     "missing", "must be given"),
    ([("model_apis.0.routing", {"by_weight": [TARGET | {"wieght": 1, "weight": 1}]})],
     "model_apis[0].routing.by_weight[0].wieght", "unknown", "did you mean weight?"),
    ([("model_apis.0.routing", {"by_weight": [TARGET | {"weight": -1}]})],
     "model_apis[0].routing.by_weight[0].weight", "-1 is out of range", "at least 0"),
    ([("model_apis.0.routing", {"by_weight": [TARGET | {"weight": 0.5}]})],
     "model_apis[0].routing.by_weight[0].weight", "0.5 is not possible", "whole number"),
    ([("model_apis.0.routing", {"by_weight": [TARGET | {"weight": 1_000_001}]})],
     "model_apis[0].routing.by_weight[0].weight", "out of range", "at most 1000000"),
    ([("model_apis.0.routing.single.model", "")], "model_apis[0].routing.single.model", "name is empty", "null leaves"),
    ([("model_apis.0.routing.single.model", "a\nb")], "model_apis[0].routing.single.model", "no name of a model",
     "without line breaks"),
    ([("model_apis.0.balance", "least-inflight")], "model_apis[0].balance", "unknown", "did you mean least_inflight?"),
    ([("model_apis.0.fallback", "qwen")], "model_apis[0].fallback", "'qwen' is not possible", "a list is expected"),
    ([("model_apis.0.fallback", ["qwen"])], "model_apis[0].fallback[0]", "'qwen' is not", "a mapping is expected"),
    ([("model_apis.0.fallback", [TARGET | {"modle": "x"}])], "model_apis[0].fallback[0].modle", "unknown", "model?"),
    ([("model_apis.0.fallback_on", [200])], "model_apis[0].fallback_on[0]", "200 is out of range", "at least 400"),
    ([("model_apis.0.fallback_on", [503, 600])], "model_apis[0].fallback_on[1]", "600 is out of", "at most 599"),
    ([("model_apis.0.fallback_on", ["5xx"])], "model_apis[0].fallback_on[0]", "'5xx' is not", "whole number"),
    ([("model_apis.0.max_attempts", 0)], "model_apis[0].max_attempts", "0 is out of range", "at least 1"),
    ([("model_apis.0.max_attempts", 65)], "model_apis[0].max_attempts", "65 is out of range", "at most 64"),
    ([("model_apis.0.first_packet_timeout_ms", -1)], "model_apis[0].first_packet_timeout_ms", "-1", "at least 0"),
    ([("model_apis.0.first_token_timeout_ms", "1s")], "model_apis[0].first_token_timeout_ms", "'1s'", "whole number"),
    ([("services.0.cooldown.failure", 1)], "services[0].cooldown.failure", "unknown", "did you mean failures?"),
    ([("services.0.cooldown.failures", -1)], "services[0].cooldown.failures", "-1 is out of", "at least 0"),
    ([("services.0.cooldown.window_ms", 0)], "services[0].cooldown.window_ms", "0 is out of range", "at least 1"),
    ([("services.0.cooldown.max_ms", 10**9)], "services[0].cooldown.max_ms", "out of range", "at most 86400000"),
    ([("limits.hold_memory_bytes", -1)], "limits.hold_memory_bytes", "-1 is out of range", "at least 0"),
    ([("limits.hold_memory", 1)], "limits.hold_memory", "unknown", "did you mean hold_memory_bytes?"),
    ([("spool_dir", "")], "spool_dir", "'' is no folder", "name a folder"),
    ([("spool_dir", __file__)], "spool_dir", "test_complaints.py is no folder", "name a folder"),
    ([("spool_dir", __file__ + "/spool")], "spool_dir", "Not a directory", "name a folder"),
    ([("spool_dir", "a\0b")], "spool_dir", "is no folder", "name a folder"),
    ([("spool_dir", "x" * 300)], "spool_dir", "File name too long", "name a folder"),
    ([("services", None)], "services", "nothing under it", "leave the key out, or give it entries: a list"),
    ([("consumers", None)], "consumers", "nothing under it", "leave the key out, or give it entries: a list"),
    ([("model_apis", None)], "model_apis", "nothing under it", "leave the key out, or give it entries: a list"),
    ([("limits", None)], "limits", "nothing under it", "leave the key out, or give it entries: a mapping"),
    ([("model_apis.0", 5)], "model_apis[0]", "5 is not possible", "a mapping is expected"),
    ([("model_apis.0", {"name": "x", "scenario": "text", "protocols": ["openai"]})],
     "model_apis[0].routing", "missing", "must be given"),
]  # fmt: skip

OFF_LOOPBACK: list[tuple[str, Any]] = [("listen", "0.0.0.0:8080"), ("model_apis.0.auth", "open")]

FITTING: list[Case] = [
    ([("admin.listen", "0.0.0.0:9090")], "admin.listen", "0.0.0.0:9090 can be reached", "set admin.token"),
    ([("admin.listen", "[::]:9090")], "admin.listen", "can be reached", "127.0.0.1"),
    ([("admin.listen", "example.com:9090")], "admin.listen", "can be reached", "admin.token"),
    ([("admin.listen", "127.0.0.1:8080")], "admin.listen", "is the address of listen too", "another port"),
    ([("services.1", SERVICE | {"name": "qwen"})], "services[1].name", "qwen is the name of services[0]", "its own"),
    ([("consumers.1", CONSUMER | {"name": "search-team"})], "consumers[1].name", "name of consumers[0]", "its own"),
    ([("model_apis.1", API | {"name": "chat"})], "model_apis[1].name", "name of model_apis[0]", "its own"),
    ([("services.1", {"name": "v", "provider": "vllm"})], "services[1].base_url", "missing", "vllm has no address"),
    ([("services.0.api_keys", [])], "services[0].api_keys", "empty, and Model API chat", "${DASHSCOPE_API_KEY}"),
    ([("services.0.headers", {"Authorization": "hidden"})], "services[0].headers.authorization",
     "from api_keys already", "one of the two"),
    ([("services.0.headers", {"X-Api-Key": "hidden"}), ("model_apis.0.protocols", ["openai", "anthropic"])],
     "services[0].headers.x-api-key", "from api_keys already", "one of the two"),
    ([("services.0.headers", {"Authorization": "hidden"}), ("services.0.api_keys", []),
      ("model_apis.0.auth", "passthrough")], "services[0].headers.authorization",
     "Model API chat passes the caller's own key on", "leave it out"),
    ([("services.0.headers", {"X-Api-Key": "hidden"}), ("model_apis.0.auth", "passthrough")],
     "services[0].headers.x-api-key", "and this one would go with it", "leave it out"),
    ([("limits.max_request_bytes", 1000), ("model_apis.0.max_request_bytes", 1001)], "model_apis[0].max_request_bytes",
     "1001 is above limits.max_request_bytes, 1000", "make this one smaller"),
    ([("model_apis.0.max_request_bytes", 2**30)], "model_apis[0].max_request_bytes", "above", "or that one larger"),
    ([("consumers.0.keys", [])], "consumers[0].keys", "has no key", "at least one"),
    ([("consumers.1", CONSUMER | {"keys": ["sk-search"]})], "consumers[1].keys[0]", "consumers[0].keys[0]", "its own"),
    ([("consumers.0.keys", ["hidden", "hidden"])], "consumers[0].keys[1]", "consumers[0].keys[0]", "its own"),
    # the digest of sk-search
    ([("consumers.1", CONSUMER | {"keys": ["sha256:"
       "b095adcc724f4f8a1b85094a159f0164bfe8a34524859411dbf0514747a71c06"]})],
     "consumers[1].keys[0]", "consumers[0].keys[0]", "its own"),
    ([("consumers", [])], "model_apis[0].auth", "the file has no consumers", "passthrough or open"),
    ([("model_apis.1", API | {"base_path": "/"})], "model_apis[1].base_path", "any domain", "name domains"),
    ([("model_apis.0.domains", ["a.com"]), ("model_apis.1", API | {"base_path": "/", "domains": ["b.com", "A.com"]})],
     "model_apis[1].domains[1]", "a.com with base path / is that of model_apis[0]", "another"),
    ([("model_apis.0.routing", {})], "model_apis[0].routing", "names no service", "single"),
    ([("model_apis.0.routing.by_model", BY_MODEL)], "model_apis[0].routing", "has single and by_model", "one of them"),
    ([("model_apis.0.routing", {"by_model": BY_MODEL, "by_weight": BY_WEIGHT})], "model_apis[0].routing",
     "has by_model and by_weight", "keep one"),
    ([("model_apis.0.routing", {"by_model": []})], "model_apis[0].routing.by_model", "empty", "match:"),
    ([("model_apis.0.routing", {"by_weight": []})], "model_apis[0].routing.by_weight", "empty", "weight:"),
    ([("model_apis.0.routing", {"by_weight": [TARGET | {"weight": 0}]})], "model_apis[0].routing.by_weight",
     "every weight is 0", "above 0"),
    ([("model_apis.0.routing", {"by_model": [*BY_MODEL, {"match": "*", "service": "qwem"}]})],
     "model_apis[0].routing.by_model[1].service", "no service 'qwem'", "did you mean qwen?"),
    ([("model_apis.0.routing", {"by_weight": [*BY_WEIGHT, {"weight": 1, "service": "qwem"}]})],
     "model_apis[0].routing.by_weight[1].service", "no service 'qwem'", "did you mean qwen?"),
    ([("model_apis.0.fallback", [TARGET, {"service": "qwem"}])], "model_apis[0].fallback[1].service",
     "no service 'qwem'", "did you mean qwen?"),
    ([("model_apis.0.balance", "least_inflight")], "model_apis[0].balance", "there is none", "route by_weight"),
    ([("model_apis.0.routing", {"by_model": BY_MODEL}), ("model_apis.0.balance", "lowest_latency")],
     "model_apis[0].balance", "lowest_latency chooses among", "leave it out"),
    ([("services.0.api_keys", ["hidden", "b", "hidden"])], "services[0].api_keys[2]",
     "that of services[0].api_keys[0] too", "each key once"),
    ([("services.1", KEYLESS), ("model_apis.0.fallback", [{"service": "gpt"}])], "services[1].api_keys",
     "empty, and Model API chat", "${OPENAI_API_KEY}"),
    ([("services.1", KEYLESS), ("model_apis.0.routing", {"by_model": [*BY_MODEL, {"match": "*", "service": "gpt"}]})],
     "services[1].api_keys", "empty, and Model API chat", "${OPENAI_API_KEY}"),
    ([("services.1", KEYLESS), ("model_apis.0.routing", {"by_weight": [*BY_WEIGHT, {"weight": 0, "service": "gpt"}]})],
     "services[1].api_keys", "empty, and Model API chat", "${OPENAI_API_KEY}"),
    ([("services.1", SERVICE), ("model_apis.0.protocols", ["dashscope"]),
      ("model_apis.0.fallback", [{"service": "second"}, {"service": "second", "model": "m"}])],
     "model_apis[0].protocols[0]", "second (vllm) does not speak the dashscope protocol", "use openai"),
    ([("services.1", SERVICE | {"image_paths": {"*": "sync"}})], "services[1].image_paths",
     "are not translated", "leave it out"),
    ([("services.0.base_url", "http://127.0.0.1"), ("services.0.tls.insecure", True)], "services[0].tls.insecure",
     "base_url is http", "https in base_url"),
    ([("services.1", BASES | {"tls": {"insecure": True}})], "services[1].tls.insecure", "base_urls is http",
     "https in base_urls"),
    ([("services.1", BASES), ("model_apis.0.protocols", ["anthropic"]),
      ("model_apis.0.fallback", [{"service": "two"}])], "model_apis[0].protocols[0]",
     "two (vllm) does not speak the anthropic protocol", "use openai or vllm, or a service"),
    ([("model_apis.0.routing.single.service", "qwem")], "model_apis[0].routing.single.service",
     "no service 'qwem'", "did you mean qwen?"),
    ([("model_apis.0.consumers", ["serch-team"])], "model_apis[0].consumers[0]",
     "no consumer 'serch-team'", "did you mean search-team?"),
    ([("model_apis.0.consumers", ["search-team"]), ("model_apis.0.auth", "open")], "model_apis[0].consumers",
     "no consumer is known", "leave the list empty"),
    (OFF_LOOPBACK, "model_apis[0].auth", "could spend the key of service qwen", "allow_open: true"),
    ([("model_apis.0.protocols", [])], "model_apis[0].protocols", "empty", "openai, anthropic, dashscope"),
    ([("model_apis.0.protocols", ["openai", "openai"])], "model_apis[0].protocols[1]", "twice", "once"),
    ([("model_apis.0.scenario", "video"), ("model_apis.0.protocols", ["openai"])], "model_apis[0].protocols[0]",
     "the openai protocol has nothing for scenario video", "use dashscope"),
    ([("services.0.provider", "anthropic"), ("services.0.base_url", None), ("model_apis.0.scenario", "embedding")],
     "model_apis[0].protocols[0]", "qwen (anthropic) has the openai protocol for text alone", "has it for embedding"),
    ([("services.0.provider", "anthropic"), ("services.0.base_url", "https://API.anthropic.com:443/v1/"),
      ("model_apis.0.scenario", "others")],
     "model_apis[0].protocols[0]", "qwen (anthropic) has the openai protocol for text alone", "has it for others"),
    ([("services.0.provider", "openai"), ("model_apis.0.protocols", ["dashscope"])], "model_apis[0].protocols[0]",
     "qwen (openai) does not speak the dashscope protocol", "use openai"),
    ([("model_apis.0.scenario", "image"), ("services.0.base_urls", {"anthropic": "https://example.com"}),
      ("services.0.base_url", None)], "model_apis[0].protocols[0]", "does not speak the openai", "use anthropic"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "wrong", "right"), [*VALUES, *FITTING])
def test_one_mistake_makes_one_complaint(changes: list[tuple[str, Any]], path: str, wrong: str, right: str) -> None:
    found = complaints(changed(*changes))
    assert [complaint.path for complaint in found] == [path], [str(complaint) for complaint in found]
    assert wrong in found[0].wrong
    assert right in found[0].right
    text = str(found[0])
    assert text == f"{path}: {found[0].wrong}; {found[0].right}"
    assert "hidden" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "changes",
    [
        [("admin.listen", "0.0.0.0:9090"), ("admin.token", "t")],
        [*OFF_LOOPBACK, ("allow_open", True)],
        [*OFF_LOOPBACK, ("listen", "127.0.0.1:1")],
        [*OFF_LOOPBACK, ("model_apis.0.auth", "passthrough")],
        [*OFF_LOOPBACK, ("services.0", SERVICE | {"name": "qwen"})],
        [("services.0.api_keys", []), ("model_apis.0.auth", "passthrough")],
        [("consumers", []), ("model_apis.0.auth", "passthrough")],
        [("consumers", []), ("model_apis.0.auth", "open")],
        [("services.1", {"name": "unused", "provider": "openai"})],
        [("services.1", SERVICE), ("model_apis.1", API | {"routing": {"single": {"service": "second"}}})],
        [("model_apis.1", API | {"base_path": "/", "domains": ["a.com"]})],
        [("model_apis.1", API | {"name": "x" * 64})],
        [("listen", "127.0.0.1:0"), ("admin.listen", "127.0.0.1:0")],
        [("model_apis.0.fallback", [TARGET, TARGET, TARGET | {"model": "x" * 256}])],
        [("model_apis.0.routing", {"by_model": [*BY_MODEL, *BY_MODEL, TARGET | {"match": "*"}]})],
        [("services.0.api_keys", ["same"]), ("services.1", SERVICE | {"api_keys": ["same"]})],
        [
            ("services.1", KEYLESS),
            ("model_apis.0.fallback", [{"service": "gpt"}]),
            ("model_apis.0.auth", "passthrough"),
        ],
        [("spool_dir", "/" + "x" * 255 + "/spool")],
        [("limits.max_request_bytes", 1000), ("model_apis.0.max_request_bytes", 1000)],
        [("services.0.base_url", "https://api.example.com.:8443/chat/v1/")],
        [("services.0.base_url", "https://" + "a" * 63 + ".b")],
        [("services.0.headers", {"X-A": "1", "X-B": "2"})],
        [("services.0.headers", {"X-Api-Key": "1"})],  # it is asked in OpenAI's protocol alone
        [("services.0.base_url", "https://x/models")],
        [("services.1", BASES)],
        [("services.1", BASES | {"base_url": "https://127.0.0.1", "tls": {"insecure": True}})],
    ],
)
def test_what_may_be(changes: list[tuple[str, Any]]) -> None:
    assert [str(complaint) for complaint in complaints(changed(*changes))] == []


class TestSpoolDir:
    """The folder is looked at by itself where the file names it, else where bodies will be held."""

    HOLDING: ClassVar[list[tuple[str, Any]]] = [("model_apis.0.fallback", [TARGET])]

    @pytest.fixture
    def shut(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """The working directory, in which this process, root though it may be, can make nothing."""
        root = os.geteuid() == 0
        with TemporaryDirectory() as folder:  # not tmp_path: nobody may not pass the folders above that
            monkeypatch.chdir(folder)
            Path(folder).chmod(0o555)
            if root:
                os.seteuid(65534)
            try:
                yield Path.cwd()
            finally:
                if root:
                    os.seteuid(0)
                monkeypatch.undo()
                Path(folder).chmod(0o700)

    def test_one_that_cannot_be_made(self, shut: Path) -> None:
        (found,) = complaints(changed(("spool_dir", "./spool/of/ours")))
        assert str(found) == (
            f"spool_dir: './spool/of/ours' cannot be used: {shut} is not writable; "
            "name a folder that is writable or can be made"
        )

    def test_the_default_one(self, shut: Path) -> None:
        text = changed(*self.HOLDING).replace("spool_dir: ./.sluiceway/spool\n", "")
        (found,) = complaints(text)
        assert found.path == "spool_dir"
        assert found.wrong == (
            f"'./.sluiceway/spool' cannot be used: {shut} is not writable; Model API chat holds request bodies"
        )
        assert {one.path for one in complaints(text + "lisen: 1\n")} == {"spool_dir", "lisen"}

    @pytest.mark.usefixtures("shut")
    @pytest.mark.parametrize("where", ["./spool", "./.sluiceway/spool"])
    def test_a_process_that_is_started_again_does_not_ask(self, where: str) -> None:
        text = changed(*self.HOLDING, ("spool_dir", where))
        assert complaints(text)
        assert complaints(text, starting=False) == []

    @pytest.mark.usefixtures("shut")
    @pytest.mark.parametrize(
        "changes",
        [
            [],
            [*HOLDING, ("limits.hold_disk_bytes", 0)],
            [*HOLDING, ("limits.max_held_disk_bytes", 0)],
        ],
    )
    def test_the_default_one_where_nothing_is_held_there(self, changes: list[tuple[str, Any]]) -> None:
        assert complaints(changed(*changes).replace("spool_dir: ./.sluiceway/spool\n", "")) == []


def test_all_mistakes_are_told_at_once() -> None:
    text = changed(
        ("lisen", 1),
        ("workers", "many"),
        ("services.0.connect_timeout_ms", -1),  # the service is broken in itself, and still known by name
        ("consumers.0.keys", ["${NOPE}"]),
        ("model_apis.0.consumers", ["nobody"]),
        ("model_apis.1", API | {"routing": {"single": {"service": "nowhere"}}}),
        ("model_apis.2", API),
    )
    assert sorted(complaint.path for complaint in complaints(text)) == [
        "consumers[0].keys[0]",
        "lisen",
        "model_apis[0].consumers[0]",
        "model_apis[1].routing.single.service",
        "model_apis[2].base_path",
        "model_apis[2].name",
        "services[0].connect_timeout_ms",
        "workers",
    ]


def test_a_value_out_of_the_environment_is_not_shown() -> None:
    environ = {"DASHSCOPE_API_KEY": "k", "SEARCH_TEAM_KEY": "s", "SECRET": "a hidden value"}
    paths = ["workers", "state", "services.0.name", "services.0.provider", "services.0.base_url", "drain_delay_ms"]
    for path in paths:
        (found,) = [one for one in complaints(changed((path, "${SECRET}")), environ) if "routing" not in one.path]
        assert "hidden" not in str(found)


class TestSections:
    """A section under a name that is nearly its own makes one complaint, not one for each name that it has."""

    @pytest.mark.parametrize(
        ("section", "written"),
        [
            ("services", "service"),
            ("services", "Services"),
            ("services", "upstreams"),
            ("consumers", "consumer"),
            ("consumers", "teams"),
            ("model_apis", "model_api"),
            ("model_apis", "apis"),
        ],
    )
    def test_under_another_name(self, section: str, written: str) -> None:
        text = changed(("model_apis.0.consumers", ["search-team"]))
        (found,) = complaints(text.replace(f"\n{section}:", f"\n{written}:"))
        assert (found.path, found.wrong) == (written, "this key is unknown")

    def test_a_section_that_is_not_there_is_told_by_who_refers_to_it(self) -> None:
        (found,) = complaints("consumers: [{name: a, keys: [k]}]\nmodel_apis: [{name: chat, scenario: text, protocols:"
                              " [openai], routing: {single: {service: qwen}}}]")  # fmt: skip
        assert str(found) == "model_apis[0].routing.single.service: there is no service 'qwen'; the file has none"


class TestYaml:
    """What is no YAML, or no mapping."""

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("listen: [1, 2\nworkers: 1", "line 1, column 9: not YAML: a bracket [ is opened and not closed"),
            ("admin: {listen: a\nworkers: 1", "line 1, column 8: not YAML: a brace { is opened and not closed"),
            ("listen: 'x\n", "line 1, column 9: not YAML: a quote is opened and not closed"),
            ('listen: "x\nworkers: 1\n', "line 1, column 9: not YAML: a quote is opened and not closed"),
            ("a: 1\n  b: 2", "line 2, column 4: not YAML: a ': ' stands where none can be"),
            ("listen: a: b", "line 1, column 10: not YAML: a ': ' stands where none can be"),
            ("limits:\n\tmax_connections: 1", "line 2, column 1: not YAML: a tab stands"),
            ("admin: {token: @hidden}", "line 1, column 16: not YAML: a text begins with a character of YAML's own"),
            ("services:\n  - a\n - b", "line 3, column 2: not YAML: the indentation does not fit"),
            ("listen: a\nworkers\nobservers: 1", "line 2, column 1: not YAML: a key has no ': ' behind it"),
            ("domains: [*.example.com]", "line 1, column 11: not YAML: a text begins with *"),
            ("listen: *nowhere", "line 1, column 9: not YAML: a text begins with *"),
            ("listen: !thing x", "line 1, column 9: not YAML: a text begins with !"),
            ("listen: a\n---\nlisten: b", "line 2, column 1: not YAML: a second document begins"),
            ("listen: &a &b c", "line 1, column 12: not YAML: "),
            ("listen: 2026-13-45", "not YAML: a date or a number that is none"),
            ("listen: \x00", "not YAML: "),
            ("listen: a\nworkers: 1\nlisten: b", "line 3, column 1: the key listen stands there twice"),
            ("services:\n  - {name: a, name: hidden}", "line 2, column 15: the key name stands there twice"),
            ("[" * 600, "it is nested too deeply"),
            ("", "the file is empty"),
            ("# nothing\n", "the file is empty"),
            ("- a", "the file is no mapping"),
            ("hello", "the file is no mapping"),
        ],
    )
    def test_text(self, text: str, wrong: str) -> None:
        (found,) = complaints(text)
        assert found.path == "sluiceway.yaml"
        assert found.wrong.startswith(wrong), found
        assert found.right
        assert "hidden" not in str(found)
        assert "\n" not in str(found)

    def test_a_key_that_is_no_text(self) -> None:
        found = complaints("1: x\nlimits: {2: x}\n")
        assert [(one.path, one.wrong) for one in found] == [
            ("1", "the key is no text"),
            ("limits.2", "the key is no text"),
        ]

    def test_an_alias_that_contains_itself(self) -> None:
        assert complaints("redact: &x [*x]")[0].wrong == "it is nested too deeply"

    def test_aliases_that_multiply(self) -> None:
        text = (
            "redact: [&a [x, x], "
            + ", ".join(f"&{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(24))
            + "]"
        )
        (found,) = complaints(text)
        assert found.path == "redact"
        assert "more than 250000 values" in found.wrong

    def test_a_date_is_no_text(self) -> None:
        (found,) = complaints(changed().replace("resource_group: default", "resource_group: 2026-01-01"))
        assert found.path == "model_apis[0].resource_group"
        assert "in quotes" in found.right


def test_a_complaint_is_one_line() -> None:
    complaint = Complaint("services[0].base_url", "the URL has a query", "leave it out")
    assert str(complaint) == "services[0].base_url: the URL has a query; leave it out"


def test_the_tables_use_a_file_that_is_good() -> None:
    assert complaints(CONTRACT) == complaints(changed()) == []


@pytest.mark.parametrize(
    "changes",
    [
        [("services.0.base_url", "https://claude.example.com")],
        [("services.0.base_url", "https://api.anthropic.com"), ("services.0.base_urls", {"openai": "https://other"})],
        [("services.0.base_url", None), ("model_apis.0.scenario", "text")],
    ],
)
def test_what_answers_in_a_providers_way_may_serve_more_than_the_provider(changes: list[tuple[str, Any]]) -> None:
    assert (
        complaints(changed(("services.0.provider", "anthropic"), ("model_apis.0.scenario", "embedding"), *changes))
        == []
    )
