"""One API call of a protocol, as data. Each protocol has a table of these (`proxy.protocols.openai`, …)."""

from dataclasses import dataclass
from typing import Final

CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")
"""The methods of what is managed below a path, beside GET."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One API call of a protocol: how it is found, how it is recorded and what may be done with it."""

    name: str
    """`sluiceway.operation`, unique within its protocol: `chat.completions`, `text-generation`, …"""
    protocol: str
    """openai | anthropic | dashscope | vllm | comfyui"""
    path: str
    """As clients of the protocol write it, from the slash, without a trailing one: `/v1/chat/completions`."""
    methods: tuple[str, ...] = ("POST",)
    gen_ai_operation: str = "chat"
    """`gen_ai.operation.name`."""
    output_type: str | None = None
    """`gen_ai.output.type`: text, json, image or speech; None where the request decides."""
    replayable: bool = True
    """May be sent again after the upstream saw it (architecture.md §5)."""
    creates_job: bool = False
    """Creates a task upstream: sent on a fresh connection, repeated only where it was refused outright."""
    asks_usage: bool = False
    """Streams of it give usage only if asked with `stream_options.include_usage`."""
    below: bool = False
    """Everything below the path belongs to it too (`/v1/models/{model}`)."""
    upstream_path: str | None = None
    """What the upstream is asked for, where that is not `path`."""
    error_protocol: str | None = None
    """In whose shape the gateway's own errors are, where that is not `protocol`'s."""
    only_provider: str | None = None
    """The one kind of service that can serve it; None: all that speak the protocol."""
    names_model: bool = True
    """Its requests name a model. Else `by_model` sends them to its first target."""
