"""What the configuration says of telemetry as a whole: kept traces, compatibility, prices.

A worker gives every observation the settings of its configuration when it begins; what an observer needs of them
travels in the record. So a new configuration counts from the first request that is served by it, and observers have no
configuration at all.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from observability import names

if TYPE_CHECKING:
    from observability.observation import Observation

COMPATIBLE: Final = ("openinference", "langfuse", "arms", "signoz")
"""Whose attributes `observer.compat` can add."""

_FAILED: Final = frozenset({names.OUTCOME_UPSTREAM_ERROR, names.OUTCOME_UPSTREAM_ABORTED, names.OUTCOME_GATEWAY_ERROR})


class Prices(Protocol):
    """What models cost."""

    def of(self, service: str, model: str) -> Any:
        """The price, as JSON takes it, of a model as this service knows it; None where it has none."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One configuration's. Without a file that says otherwise, its defaults."""

    keep_errors: bool = True
    keep_slower_ns: int = 0
    """0: none is kept for being slow."""
    compat: tuple[str, ...] | None = None
    """Some of COMPATIBLE, None for none."""
    prices: Prices | None = None

    def keeps(self, observation: "Observation", end_ns: int) -> bool:
        """Is a request that the sampler has passed over traced all the same? Of one whose outcome is settled.

        What failed by the upstream's or the gateway's fault is; a caller's wrong key or path, and a caller who left,
        is nobody's failure: otherwise a scan of the port would be traced in full.
        """
        if self.keep_errors:
            outcome = observation.outcome
            if outcome in _FAILED:
                return True
            if outcome == names.OUTCOME_REJECTED and observation.error_origin == names.ORIGIN_GATEWAY:
                return True
        return 0 < self.keep_slower_ns <= end_ns - observation.accepted_ns


DEFAULT: Final = Telemetry()
