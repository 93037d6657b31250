"""Anthropic (Claude): its own protocol, and OpenAI's for those who want to try it with their OpenAI SDK."""

from typing import Final

from proxy.providers.base import Provider

ANTHROPIC: Final = Provider(
    name="anthropic",
    base_url="https://api.anthropic.com",
    protocols={"anthropic": "", "openai": ""},
    key_header={"anthropic": b"x-api-key", "openai": b"authorization"},
    needs_key=True,
    propagate_trace=False,
    scenarios={"openai": frozenset({"text"})},
    url_suffixes=("/v1",),
)
