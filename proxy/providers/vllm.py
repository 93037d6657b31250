"""vLLM and other self-hosted servers of the OpenAI protocol: an address of ones own, and often no key.

vLLM adds rerank and score (protocol vllm), and answers Anthropic's messages too.
"""

from typing import Final

from proxy.providers.base import Provider

VLLM: Final = Provider(
    name="vllm",
    base_url=None,
    protocols={"openai": "", "vllm": "", "anthropic": ""},
    key_header={"openai": b"authorization", "vllm": b"authorization", "anthropic": b"authorization"},
    needs_key=False,
    propagate_trace=True,
    url_suffixes=("/v1",),
)
