"""A kind of service, as data: which protocols it speaks, below which path each, and how it wants its key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_KEY_HEADER: Final = {
    "openai": b"authorization",
    "anthropic": b"x-api-key",
    "dashscope": b"authorization",
    "vllm": b"authorization",
}
"""Protocol → where its own clients put the key: for services that speak one which is not their provider's."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A kind of service. Each module beside this one has one."""

    name: str
    """As in the configuration and in `gen_ai.provider.name`."""
    base_url: str | None
    """Scheme and host where the provider has one address for all; None: every service gives its own."""
    protocols: Mapping[str, str]
    """Protocol → what stands before the protocol's own paths: openai → `/compatible-mode`. No trailing slash."""
    key_header: Mapping[str, bytes]
    """Protocol → the header that carries the key: `authorization` (as a bearer token) or one for the bare key."""
    needs_key: bool
    """Whether a service without api_keys can only be a mistake."""
    propagate_trace: bool
    """Whether trace headers go upstream unless the service says otherwise: only where it is usually ours."""
    scenarios: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Protocol → the scenarios of it that the provider itself serves, where that is known and not all."""
    url_suffixes: tuple[str, ...] = ()
    """What SDKs write at the end of a base URL and the protocols' own paths bring along: understood and removed."""

    def auth_headers(self, credential: str | None, protocol: str) -> tuple[tuple[bytes, bytes], ...]:
        """The header lines that authenticate with `credential` in `protocol`; none where there is no credential.

        Of use for a service's own key and for a caller's (auth: passthrough). KeyError for a protocol that nobody
        speaks.
        """
        name = self.key_header.get(protocol) or _KEY_HEADER[protocol]
        if not credential:
            return ()
        value = credential.encode("latin-1")
        return ((name, b"Bearer " + value if name == b"authorization" else value),)
