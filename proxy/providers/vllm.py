"""vLLM and other self-hosted servers of the OpenAI protocol: an address of ones own, and often no key."""

from typing import Final

from proxy.providers.base import Provider

VLLM: Final = Provider(
    name="vllm",
    base_url=None,
    protocols={"openai": ""},
    key_header={"openai": b"authorization"},
    needs_key=False,
    propagate_trace=True,
    url_suffixes=("/v1",),
)
