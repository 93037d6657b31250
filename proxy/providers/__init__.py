"""Kinds of services, as tables: one module per provider, gathered in `PROVIDERS`."""

from typing import Final

from proxy.providers.anthropic import ANTHROPIC
from proxy.providers.base import Provider
from proxy.providers.dashscope import DASHSCOPE
from proxy.providers.openai import OPENAI
from proxy.providers.vllm import VLLM

PROVIDERS: Final[dict[str, Provider]] = {provider.name: provider for provider in (DASHSCOPE, OPENAI, ANTHROPIC, VLLM)}
"""Name → provider, of those that are built."""
