"""Alibaba Cloud Model Studio (DashScope): its own protocol, and OpenAI's below `/compatible-mode`."""

from typing import Final

from proxy.providers.base import Provider

DASHSCOPE: Final = Provider(
    name="dashscope",
    base_url="https://dashscope.aliyuncs.com",
    protocols={"openai": "/compatible-mode", "dashscope": ""},
    key_header={"openai": b"authorization", "dashscope": b"authorization"},
    needs_key=True,
    propagate_trace=False,
    url_suffixes=("/compatible-mode/v1", "/compatible-mode", "/api/v1"),
)
