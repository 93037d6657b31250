"""OpenAI, and services that are its equal down to the address layout."""

from typing import Final

from proxy.providers.base import Provider

OPENAI: Final = Provider(
    name="openai",
    base_url="https://api.openai.com",
    protocols={"openai": ""},
    key_header={"openai": b"authorization"},
    needs_key=True,
    propagate_trace=False,
    url_suffixes=("/v1",),
)
