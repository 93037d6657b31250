"""Certificates for tests: an authority of our own that issues what a test needs, right or wrong."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority whose files live in `folder`; `ca_file` is what a client has to trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("tests' authority")
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), now - _DAY, now + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, *names: str, expired: bool = False, self_signed: bool = False) -> ssl.SSLContext:
        """A server's TLS context with a certificate for these host names or IP addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, expired=expired, self_signed=self_signed))
        return context

    def issue(
        self, *names: str, expired: bool = False, self_signed: bool = False, passphrase: bytes | None = None
    ) -> Path:
        """A PEM file with a key and its certificate, whose subject is the first name; for servers and clients."""
        key_text, text = self.pair(*names, expired=expired, self_signed=self_signed, passphrase=passphrase)
        path = self._folder / f"{abs(hash(text)):x}.pem"
        path.write_bytes(key_text + text)
        return path

    def pair(
        self, *names: str, expired: bool = False, self_signed: bool = False, passphrase: bytes | None = None
    ) -> tuple[bytes, bytes]:
        """The same as text: the key, and the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = _name(names[0])
        issuer, issuer_key = (subject, key) if self_signed else (self._name, self._key)
        until = now - _DAY / 2 if expired else now + _DAY
        certificate = (
            _builder(subject, issuer, key.public_key(), now - _DAY, until)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .sign(issuer_key, hashes.SHA256())
        )
        hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return (
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden),
            certificate.public_bytes(serialization.Encoding.PEM),
        )

    def trusting(self) -> ssl.SSLContext:
        """A client's TLS context that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.ca_file)


def halves(pem: Path) -> tuple[Path, Path]:
    """The certificate and the key of one file, in a file each."""
    key, begin, certificate = pem.read_text().partition("-----BEGIN CERTIFICATE-----")
    paths = pem.with_suffix(".certificate.pem"), pem.with_suffix(".key.pem")
    paths[0].write_text(begin + certificate)
    paths[1].write_text(key)
    return paths


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
