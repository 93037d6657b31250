"""TLS towards upstreams: whom a service trusts, what it shows of itself, and sessions that save half of a handshake.

A session is remembered by the name that was verified, and only within its context: services with other authorities or
with a certificate of their own have contexts of their own, so that none resumes what another was allowed. In TLS 1.3 a
server hands out sessions after the handshake; `remember()` is therefore for a connection that has had an answer.
"""

import ssl
from collections import OrderedDict
from functools import cache
from typing import Final

from proxy.config.service_tls import load_client_certificate
from proxy.config.targets import Tls

SESSIONS_MAX: Final = 256
"""Of one context. One is 2 to 10 KiB, the upstream's certificates included; a gateway has tens of upstreams."""
_ALPN: Final = ["http/1.1"]
"""Said outright, so that no server chooses h2 for us."""


class TlsFilesError(OSError):
    """A file that TLS towards a service rests on cannot be used. The text names its key (`tls.ca`) and the file, and
    says why, in one line.

    It belongs behind `services[i].`, which only the configuration can say.
    """


class Context(ssl.SSLContext):
    """A client's context that offers to every server the last session it gave us.

    asyncio and uvloop take no session for a new connection, but both make its TLS object by `wrap_bio`.
    """

    def __init__(self, _protocol: int) -> None:
        self._sessions: OrderedDict[str, ssl.SSLSession] = OrderedDict()

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As in `ssl`, with the session that is remembered for this name."""
        if session is None and isinstance(server_hostname, str):
            session = self._sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def remember(self, handshaken: ssl.SSLObject) -> None:
        """Keep the session of a connection for the next one to the same name, if the server gave one."""
        name, session = handshaken.server_hostname, handshaken.session
        # without a ticket only TLS 1.2 can resume, by the id of the session; in 1.3 there is then nothing to resume
        if session is None or not name or not (session.has_ticket or handshaken.version() == "TLSv1.2"):
            return
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def forget(self, name: str) -> None:
        """A handshake failed: the next one is a whole one, in case that was the session's fault."""
        self._sessions.pop(name, None)


def context_of(tls: Tls) -> Context:
    """One for all services with nothing of their own: loading the system's authorities takes some 20 ms. Files are
    read anew for every caller, because they may have changed when the configuration is loaded again.

    Raises TlsFilesError.
    """
    if tls.ca is None and tls.certificate is None and not tls.insecure:
        return _system_context()
    context = _context()
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as error:  # OpenSSL's own text tells nobody anything
            raise TlsFilesError(f"tls.ca: {tls.ca!r} cannot be used: it holds no PEM certificates") from error
        except OSError as error:
            raise TlsFilesError(f"tls.ca: {tls.ca!r} cannot be used: {error.strerror}") from error
    if tls.certificate is not None:
        try:
            load_client_certificate(context, tls.certificate, tls.key)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
            said = f"tls.certificate: {tls.certificate!r} cannot be used with its key: {reason or 'they do not fit'}"
            raise TlsFilesError(said) from error
    return context


@cache
def _system_context() -> Context:
    context = _context()
    context.load_default_certs()
    return context


def _context() -> Context:
    context = Context(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)
    return context
