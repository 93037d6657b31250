"""Which proxy is on the way to a service: its own, the environment's, none."""

from base64 import b64decode
from typing import Any

import pytest

from proxy.config.compile import compile_snapshot
from proxy.config.egress import egress_of, parse_egress
from proxy.config.file import parse
from proxy.config.targets import Egress
from tests.proxy.config.files import ENVIRON, changed, complaints

NAMED = {"HTTPS_PROXY": "http://out.test:3128"}
OUT = Egress("out.test", 3128)


@pytest.mark.parametrize(
    ("url", "host", "port", "credentials"),
    [
        ("http://out.test:3128", "out.test", 3128, None),
        ("http://out.test", "out.test", 80, None),
        ("http://[2001:db8::1]:3128/", "2001:db8::1", 3128, None),
        ("http://team:pass@192.0.2.1:1", "192.0.2.1", 1, b"team:pass"),
        ("http://team@out.test:1", "out.test", 1, b"team:"),
        ("http://te%40m:p%3A%2F%C3%A9:x@out.test:1", "out.test", 1, b"te@m:p:/\xc3\xa9:x"),
    ],
)
def test_a_proxys_url(url: str, host: str, port: int, credentials: bytes | None) -> None:
    egress = parse_egress(url)
    assert (egress.host, egress.port) == (host, port)
    if credentials is None:
        assert egress.authorization is None
    else:
        assert egress.authorization is not None
        assert egress.authorization.startswith(b"Basic ")
        assert b64decode(egress.authorization[6:]) == credentials


@pytest.mark.parametrize(
    ("own", "scheme", "environ", "expected"),
    [
        (None, "https", {}, None),
        (None, "https", NAMED, OUT),
        (None, "http", NAMED | {"HTTP_PROXY": "http://other.test:1", "http_proxy": "http://other.test:1"}, None),
        ("none", "https", NAMED, None),
        ("http://own.test:1", "https", NAMED | {"NO_PROXY": "*"}, Egress("own.test", 1)),
        ("http://own.test:1", "http", {}, Egress("own.test", 1)),
        (None, "https", {"https_proxy": "http://low.test:1"} | NAMED, Egress("low.test", 1)),
        (None, "https", {"HTTPS_PROXY": "out.test:3128"}, OUT),
        (None, "https", {"HTTPS_PROXY": " "}, None),
        (None, "https", NAMED | {"NO_PROXY": "api.test"}, None),
        (None, "https", NAMED | {"no_proxy": "api.test", "NO_PROXY": ""}, None),
    ],
)
def test_whose_proxy_it_is(own: str | None, scheme: str, environ: dict[str, str], expected: Egress | None) -> None:
    assert egress_of(own, scheme, "api.test", 443, environ) == expected


@pytest.mark.parametrize(
    ("exceptions", "host", "without"),
    [
        ("*", "api.test", True),
        ("api.test", "api.test", True),
        ("API.test", "api.TEST.", True),
        ("test", "api.test", True),
        (".test", "api.test", True),
        ("*.test", "api.test", True),
        (".api.test", "api.test", True),
        ("pi.test", "api.test", False),
        ("api.test.cn", "api.test", False),
        ("other.test, ,api.test", "api.test", True),
        ("other.test api.test", "api.test", True),
        ("api.test:443", "api.test", True),
        ("api.test:8443", "api.test", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1:443", "192.0.2.1", True),
        ("192.0.2.1:80", "192.0.2.1", False),
        ("192.0.2.0/24", "192.0.2.1", True),
        ("192.0.2.9/24", "192.0.2.1", True),
        ("10.0.0.0/8", "192.0.2.1", False),
        ("10.0.0.0/8", "api.test", False),
        ("192.0.2.1", "api.test", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8:0::1", "2001:db8::1", True),
        ("[2001:db8::1]:443", "2001:db8::1", True),
        ("[2001:db8::1]:80", "2001:db8::1", False),
        ("2001:db8::/32", "192.0.2.1", False),
        ("2", "192.0.2.2", False),
        ("", "api.test", False),
        (".", "api.test", False),
        (",*.", "api.test", False),
    ],
)
def test_exceptions(exceptions: str, host: str, without: bool) -> None:
    found = egress_of(None, "https", host, 443, NAMED | {"NO_PROXY": exceptions})
    assert (found is None) is without


def test_the_environments_proxy_is_checked_where_it_is_used() -> None:
    bad = ENVIRON | {"HTTPS_PROXY": "socks5://hidden:1080"}
    (complaint,) = complaints(changed(), bad)
    assert complaint.path == "services[0].egress_proxy"
    assert complaint.wrong.startswith("HTTPS_PROXY of the environment is no usable proxy")
    assert "hidden" not in str(complaint)
    for change in (("services.0.egress_proxy", "none"), ("services.0.base_url", "http://127.0.0.1:1")):
        assert complaints(changed(change), bad) == []
    assert complaints(changed(), bad | {"NO_PROXY": "aliyuncs.com"}) == []


def test_and_for_each_address_of_a_service() -> None:
    bad = ENVIRON | {"HTTPS_PROXY": "socks5://hidden:1080", "NO_PROXY": "first.test"}
    urls = {"openai": "https://first.test", "anthropic": "https://second.test"}
    text = changed(("services.0.base_url", None), ("services.0.base_urls", urls))
    assert [complaint.path for complaint in complaints(text, bad)] == ["services[0].egress_proxy"]
    assert complaints(text, bad | {"NO_PROXY": "test"}) == []
    environ = ENVIRON | {"HTTPS_PROXY": "out.test:3128", "NO_PROXY": "first.test"}
    service = compile_snapshot(parse(text, environ, "test"), 1, environ).services["qwen"]
    assert [service.at(protocol).egress for protocol in urls] == [None, Egress("out.test", 3128)]


def test_a_proxy_from_a_variable_and_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "proxy"
    path.write_text("http://team:pass@out.test:3128\n")
    for said in ("${OUT}", f"file:{path}", "http://team:${PASS}@out.test:3128"):
        environ = ENVIRON | {"OUT": "http://team:pass@out.test:3128", "PASS": "pass"}
        document = parse(changed(("services.0.egress_proxy", said)), environ, "test")
        service = compile_snapshot(document, 1, {}).services["qwen"]
        assert service.egress == Egress("out.test", 3128, b"Basic dGVhbTpwYXNz")
        assert "dGVhbTpwYXNz" not in repr(service)
