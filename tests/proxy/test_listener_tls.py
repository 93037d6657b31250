"""The certificate: what is wrong with a pair of files, and a new one without a restart."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy.listener_tls import CertificateError, Identity, context_of
from tests.fakes.certificates import Authority
from tests.fakes.raw_tls import connect_tls
from tests.fakes.worker import document_of, running
from tests.proxy.config.files import changed, complaints
from tests.proxy.test_edge_endings import HEALTHZ

PASSPHRASE = b"never shown"


@pytest.fixture
def pair(tmp_path: Path, listener_authority: Authority) -> tuple[Path, Path]:
    """Files of a certificate and its key."""
    return written(tmp_path, listener_authority.pair("127.0.0.1"))


def written(folder: Path, pair: tuple[bytes, bytes]) -> tuple[Path, Path]:
    key, certificate = pair
    (folder / "cert.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    return folder / "cert.pem", folder / "key.pem"


def named(*files: Path) -> list[tuple[str, Any]]:
    return [(f"tls.{key}", str(file)) for key, file in zip(("certificate", "key"), files, strict=False)]


# -- what is wrong with them -----------------------------------------------------------------------------------------


def test_a_pair_is_good_in_two_files_or_in_one(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert complaints(changed(*named(*pair))) == []
    both = tmp_path / "both.pem"
    both.write_bytes(pair[1].read_bytes() + pair[0].read_bytes())
    assert complaints(changed(*named(both))) == []
    assert complaints(changed(*named(both, both))) == []


def test_what_does_not_belong_together(tmp_path: Path, pair: tuple[Path, Path], listener_authority: Authority) -> None:
    certificate, key = pair
    foreign, hidden, nothing = tmp_path / "foreign.pem", tmp_path / "hidden.pem", tmp_path / "nothing.pem"
    foreign.write_bytes(listener_authority.pair("127.0.0.1")[0])
    hidden.write_bytes(listener_authority.pair("127.0.0.1", passphrase=PASSPHRASE)[0])
    nothing.write_bytes(b"nothing\n")
    unreadable = tmp_path / "gone.pem"
    for files, path, wrong, right in (
        ((certificate, foreign), "tls.key", "is not the certificate's", "one pair"),
        ((certificate, hidden), "tls.key", "has a passphrase", "openssl pkey"),
        ((certificate, nothing), "tls.key", "holds no usable PEM key", "the certificate's key"),
        ((certificate, certificate), "tls.key", "holds no usable PEM key", "the certificate's key"),
        ((certificate, unreadable), "tls.key", "cannot be read (No such file", "a readable file"),
        ((certificate,), "tls.key", "it is missing", "the certificate's key"),
        ((nothing, key), "tls.certificate", "holds no PEM certificate", "its chain"),
        ((key, key), "tls.certificate", "holds no PEM certificate", "its chain"),
    ):
        (found,) = complaints(changed(*named(*files)))
        assert found.path == path, found
        assert wrong in found.wrong, found
        assert right in found.right, found
        assert "\n" not in str(found)


def test_a_passphrase_is_not_asked_for_where_the_key_is_in_the_certificates_file(
    tmp_path: Path, listener_authority: Authority
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(listener_authority.pair("127.0.0.1", passphrase=PASSPHRASE)))
    (found,) = complaints(changed(*named(both)))
    assert (found.path, "has a passphrase" in found.wrong) == ("tls.certificate", True)


def test_old_versions_are_refused(pair: tuple[Path, Path]) -> None:
    context = context_of(*map(str, pair))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# -- a new one -------------------------------------------------------------------------------------------------------


async def test_a_new_pair_is_taken_over_once_it_is_whole(
    tmp_path: Path, pair: tuple[Path, Path], listener_authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    identity = Identity(str(pair[0]), str(pair[1]))
    first = identity.context
    await identity.look()
    assert identity.context is first
    key, certificate = listener_authority.pair("127.0.0.1")
    pair[0].write_bytes(certificate)
    for _ in range(3):
        await identity.look()
        assert identity.context is first
    assert capfd.readouterr().out.count("certificate_not_reloaded") == 1
    pair[1].write_bytes(key)
    await identity.look()
    second = identity.context
    assert second is not first
    assert capfd.readouterr().out.count("certificate_reloaded") == 1
    pair[1].unlink()
    for _ in range(2):
        await identity.look()
    assert identity.context is second
    assert capfd.readouterr().out.count("certificate_not_reloaded") == 1


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path, listener_authority: Authority) -> None:
    """Kubernetes changes a Secret by one link to a folder."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, listener_authority.pair("127.0.0.1"))
    (tmp_path / "now").symlink_to("one")
    identity = Identity(str(tmp_path / "now/cert.pem"), str(tmp_path / "now/key.pem"))
    first = identity.context
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "now")
    await identity.look()
    assert identity.context is not first


async def test_another_generation_may_name_other_files(tmp_path: Path, listener_authority: Authority) -> None:
    one, two = listener_authority.issue("127.0.0.1"), listener_authority.issue("127.0.0.1")
    identity = Identity(str(one), None)
    first = identity.context
    with pytest.raises(CertificateError):
        identity.prepared(str(tmp_path / "gone.pem"), None)
    show = identity.prepared(str(two), None)
    assert identity.context is first
    show()
    second = identity.context
    assert second is not first
    await identity.look()
    assert identity.context is second


async def test_new_handshakes_get_the_new_one_and_running_connections_stay(
    pair: tuple[Path, Path], listener_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.listener_tls.LOOK_S", 0.02)
    context = listener_authority.trusting()
    tls = {"certificate": str(pair[0]), "key": str(pair[1])}
    async with running(document_of("http://127.0.0.1:9", tls=tls)) as worker, connect_tls(worker.port, context) as old:
        shown = old.tls.getpeercert(binary_form=True)
        key, certificate = listener_authority.pair("127.0.0.1")
        pair[0].write_bytes(certificate)
        pair[1].write_bytes(key)
        async with asyncio.timeout(10):
            while True:
                async with connect_tls(worker.port, context) as new:
                    if new.tls.getpeercert(binary_form=True) != shown:
                        break
        assert new.tls.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(certificate.decode())
        old.send(HEALTHZ)
        assert (await old.answer()).status == 200
