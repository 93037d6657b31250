"""Alibaba Cloud Model Studio (DashScope): its own protocol, OpenAI's below `/compatible-mode`, Anthropic's below
`/apps/anthropic`. Its three regions differ by host alone: dashscope, dashscope-intl and dashscope-us."""

from typing import Final

from proxy.providers.base import Provider

DASHSCOPE: Final = Provider(
    name="dashscope",
    base_url="https://dashscope.aliyuncs.com",
    protocols={"openai": "/compatible-mode", "dashscope": "", "anthropic": "/apps/anthropic"},
    key_header={"openai": b"authorization", "dashscope": b"authorization", "anthropic": b"x-api-key"},
    needs_key=True,
    propagate_trace=False,
    url_suffixes=("/compatible-mode/v1", "/compatible-mode", "/api/v1", "/v1", "/apps/anthropic/v1", "/apps/anthropic"),
)
