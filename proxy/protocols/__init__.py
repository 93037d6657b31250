"""What each wire protocol offers, as tables: one module per protocol, each with scenario → operations.

The default routes of a Model API follow from its scenario and its protocols by `operations`; nothing else in the
gateway lists paths.
"""

from typing import Final

from proxy.protocols import dashscope, openai
from proxy.protocols.base import Operation

_TABLES: Final[dict[str, dict[str, tuple[Operation, ...]]]] = {
    "openai": openai.OPERATIONS,
    "dashscope": dashscope.OPERATIONS,
}
PROTOCOLS: Final[tuple[str, ...]] = tuple(_TABLES)
"""Of those that are built."""
SCENARIOS: Final[tuple[str, ...]] = ("text", "image", "embedding")
"""Of those that are built: each is in at least one table."""


def operations(scenario: str, protocol: str) -> tuple[Operation, ...]:
    """The operations of a protocol in a scenario; empty where it has none (or none that is built yet)."""
    return _TABLES.get(protocol, {}).get(scenario, ())


def protocols_of(scenario: str) -> tuple[str, ...]:
    """The protocols that have operations in a scenario."""
    return tuple(protocol for protocol, table in _TABLES.items() if scenario in table)
