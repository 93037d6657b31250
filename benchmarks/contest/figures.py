"""Figures out of a run's result: medians and spreads over the rounds, by workload, point and contestant."""

from __future__ import annotations

import statistics
from typing import Any

Result = dict[str, Any]


def of_round(figures: dict[str, Any], key: str) -> float | None:
    """One figure of one round; `key` may go down: ``latency_ms.p99``."""
    value: Any = figures
    for step in key.split("."):
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return float(value) if isinstance(value, int | float) else None


def values(result: Result, workload: str, point: str, name: str, key: str) -> list[float]:
    """The figure in all rounds that have it; a key ``a/b*n`` is the quotient of two, times n."""
    rounds = result["rounds"].get(workload, {}).get(point, {}).get(name, [])
    over, _, under = key.partition("/")
    under, _, times = under.partition("*")
    found = []
    for figures in rounds:
        value = of_round(figures, over)
        if value is not None and under:
            base = of_round(figures, under)
            value = value / base * float(times or 1) if base else None
        if value is not None:
            found.append(value)
    return found


def median(result: Result, workload: str, point: str, name: str, key: str) -> float | None:
    """Over the rounds; None where there is none.

    ``added_ms.p99``: less the lowest of those without a proxy. What disturbs these only makes them larger, and what
    was added would seem less, or less than nothing.
    """
    if key.startswith("added_ms."):
        share = key.removeprefix("added_ms.")
        mine = median(result, workload, point, name, f"latency_ms.{share}")
        without = values(result, workload, point, name, f"direct_ms.{share}")
        return None if mine is None or not without else mine - min(without)
    found = values(result, workload, point, name, key)
    return statistics.median(found) if found else None


def total(result: Result, workload: str, point: str, name: str, key: str) -> float | None:
    """Of all rounds; None where there is none."""
    found = values(result, workload, point, name, key)
    return sum(found) if found else None


def added(result: Result, workload: str, point: str, name: str, key: str) -> float | None:
    """The median less direct's."""
    mine, direct = (median(result, workload, point, one, key) for one in (name, "direct"))
    return None if mine is None or direct is None else mine - direct


def spread(result: Result, workload: str, point: str, name: str, key: str) -> float | None:
    """Half of the distance from the least to the most, as a share of the median."""
    found = values(result, workload, point, name, key)
    middle = statistics.median(found) if found else 0.0
    return (max(found) - min(found)) / 2 / middle if len(found) > 1 and middle else None


def names(result: Result, workload: str, point: str | None = None) -> list[str]:
    """Contestants with a figure there, in the run's order."""
    points = result["rounds"].get(workload, {})
    there = {name for one, of_point in points.items() if point in (None, one) for name in of_point}
    return [name for name in result["contestants"] if name in there]
