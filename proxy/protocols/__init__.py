"""What each wire protocol offers, as tables: one module per protocol, each with scenario → operations.

The default routes of a Model API follow from its scenario and its protocols by `operations`; nothing else in the
gateway lists paths.
"""

from collections.abc import Iterable
from typing import Final

from proxy.protocols import anthropic, dashscope, openai, vllm
from proxy.protocols.base import Operation

_TABLES: Final[dict[str, dict[str, tuple[Operation, ...]]]] = {
    "openai": openai.OPERATIONS,
    "anthropic": anthropic.OPERATIONS,
    "dashscope": dashscope.OPERATIONS,
    "vllm": vllm.OPERATIONS,
}
PROTOCOLS: Final[tuple[str, ...]] = tuple(_TABLES)
"""Of those that are built."""
SCENARIOS: Final[tuple[str, ...]] = ("text", "image", "video", "speech", "embedding", "rerank", "others")
_ALWAYS: Final[dict[str, tuple[Operation, ...]]] = {"image": (dashscope.ALIYUN_IMAGES,)}
"""Scenario → operations that each Model API of it has, whatever its protocols."""


def operations(scenario: str, protocol: str) -> tuple[Operation, ...]:
    """The operations of a protocol in a scenario; empty where it has none (or none that is built yet)."""
    return _TABLES.get(protocol, {}).get(scenario, ())


def protocols_of(scenario: str) -> tuple[str, ...]:
    """The protocols that have operations in a scenario."""
    return tuple(protocol for protocol, table in _TABLES.items() if scenario in table)


def default_operations(scenario: str, protocols: Iterable[str]) -> tuple[Operation, ...]:
    """What a Model API of this scenario and these protocols serves, no more and no less."""
    own = (operation for protocol in protocols for operation in operations(scenario, protocol))
    return (*own, *_ALWAYS.get(scenario, ()))
