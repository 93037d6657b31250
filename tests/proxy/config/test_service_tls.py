"""Files for TLS towards a service: each mistake with them is told where it was made, before any request."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from tests.fakes.certificates import Authority, halves
from tests.proxy.config.files import ENVIRON, changed, complaints


class Files:
    """The files of one authority, made once."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.ca = authority.ca_file
        self.both = authority.issue("search-team")
        self.certificate, self.key = halves(self.both)
        _, self.other_key = halves(authority.issue("other-team"))
        self.sealed = authority.issue("search-team", passphrase=b"hidden")
        self.sealed_certificate, self.sealed_key = halves(self.sealed)
        self.damaged = folder / "damaged.pem"
        self.damaged.write_text("-----BEGIN CERTIFICATE-----\n-----END PRIVATE KEY-----\n")
        self.old_sealed = folder / "old.pem"  # PEM's own encryption, of OpenSSL before 1.0
        self.old_sealed.write_text(
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n"
            "-----END EC PRIVATE KEY-----\n"
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


def tls(files: Files, **named: str) -> tuple[str, Any]:
    return "services.0.tls", {key: str(getattr(files, name)) for key, name in named.items()}


@pytest.mark.parametrize(
    "named",
    [
        {"ca": "ca"},
        {"certificate": "both"},
        {"certificate": "both", "key": "both"},
        {"certificate": "certificate", "key": "key"},
        {"ca": "ca", "certificate": "both"},
    ],
)
def test_good_ones(files: Files, named: dict[str, str]) -> None:
    assert complaints(changed(tls(files, **named))) == []


@pytest.mark.parametrize(
    ("named", "place", "wrong", "right"),
    [
        ({"key": "key"}, "key", "no certificate goes with it", "tls.certificate"),
        ({"certificate": "certificate"}, "certificate", "holds no private key", "name the key's file in tls.key"),
        ({"certificate": "both", "key": "other_key"}, "key", "not the certificate's", "was issued for"),
        ({"certificate": "both", "key": "sealed_key"}, "key", "has a passphrase", "openssl pkey"),
        ({"certificate": "both", "key": "old_sealed"}, "key", "has a passphrase", "openssl pkey"),
        ({"certificate": "sealed"}, "certificate", "has a passphrase", "openssl pkey"),
        ({"certificate": "damaged"}, "certificate", "cannot be used", "unencrypted PEM files"),
        ({"certificate": "key"}, "certificate", "holds no PEM certificate", "readable PEM file"),
        ({"certificate": "both", "key": "ca"}, "key", "holds no PEM private key", "readable PEM file"),
    ],
)
def test_bad_ones(files: Files, named: dict[str, str], place: str, wrong: str, right: str) -> None:
    (complaint,) = complaints(changed(tls(files, **named)))
    assert complaint.path == f"services[0].tls.{place}"
    assert wrong in complaint.wrong
    assert right in complaint.right


def test_authorities_without_verification(files: Files) -> None:
    (complaint,) = complaints(changed(("services.0.tls", {"ca": str(files.ca), "insecure": True})))
    assert (complaint.path, "nothing is verified" in complaint.wrong) == ("services[0].tls.ca", True)


def test_each_address_of_a_service_has_its_tls(files: Files) -> None:
    urls = ("services.0.base_urls", {"openai": "https://one.test", "anthropic": "https://two.test"})
    nowhere = ("services.0.base_url", None)
    text = changed(nowhere, urls, tls(files, ca="ca", certificate="both"))
    service = compile_snapshot(parse(text, ENVIRON, "test"), 1, {}).services["qwen"]
    places = [service.at(protocol) for protocol in ("openai", "anthropic")]
    assert [(place.host, place.tls) for place in places] == [("one.test", service.tls), ("two.test", service.tls)]
    own = ("services.0.provider", "vllm")
    (complaint,) = complaints(changed(own, nowhere, urls, tls(files, certificate="certificate")))
    assert complaint.path == "services[0].tls.certificate"


def test_other_contents_make_other_tls(files: Files, tmp_path: Path) -> None:
    """At the same path: a pool belongs to what the files held."""
    path = tmp_path / "client.pem"

    def compiled() -> Any:
        text = changed(("services.0.tls", {"ca": str(files.ca), "certificate": str(path)}))
        return compile_snapshot(parse(text, ENVIRON, "test"), 1, {}).services["qwen"].tls

    shutil.copy(files.both, path)
    first, same = compiled(), compiled()
    shutil.copy(Authority(tmp_path).issue("search-team"), path)
    assert first == same
    assert compiled() != first
