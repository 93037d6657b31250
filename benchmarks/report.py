"""The macro benchmark's result as text and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_COLUMNS = (
    ("requests/s", "requests_per_s", ",.0f"),
    ("p50 ms", "p50_ms", ".2f"),
    ("p99 ms", "p99_ms", ".2f"),
    ("CPU s/1000", "cpu_s_per_1000", ".4f"),
    ("worker µs", "worker_cpu_us", ".0f"),
    ("worker core", "worker_core_busy", ".0%"),
    ("of others", "worker_core_foreign", ".0%"),
    ("other core", "other_core_busy", ".0%"),
    ("errors", "errors", "d"),
    ("records", "records", ",d"),
    ("missing", "records_missing", "d"),
    ("dropped", "records_dropped", "d"),
    ("spans lost", "spans_dropped", "d"),
)


def describe(result: dict[str, Any]) -> str:
    """Machine, method and figures, as a person reads them."""
    plan, sizes = result["plan"], result["bytes"]
    lines = ["", *(f"{name}: {value}" for name, value in result["machine"].items()), ""]
    lines.append(
        f"{result['when']}: chat, {sizes['request']} bytes in, {sizes['response']} out, "
        f"{plan['connections']} connections, {plan['rounds']} interleaved rounds of {plan['round_s']} s "
        f"after {plan['warm_up_s']} s, medians; "
        f"worker on core {plan['worker_core']}, everything else on core {plan['other_core']}"
    )
    lines += ["", _row("", [title for title, _, _ in _COLUMNS])]
    lines += [_row(name, _cells(figures)) for name, figures in result["medians"].items()]
    fixed = dict(result["fixed"])
    rate = fixed.pop("rate")
    lines += [_row(f"{name} at {rate:,.0f}/s", _cells(figures)) for name, figures in fixed.items()]
    lines += [
        "",
        f"direct, without a proxy: {result['direct']['requests_per_s']:,.0f}/s, headroom {result['headroom']:.1f}",
    ]
    lines.append(f"fixed-rate generator, direct: up to {result['load_capacity_per_s']:,.0f}/s")
    if result["ratio"] is not None:
        ours, plain = (result["medians"][name]["worker_cpu_us"] for name in ("gateway", "plain"))
        lines.append(f"gateway / plain: {result['ratio']:.2f}; worker's CPU a request: {ours:.0f} / {plain:.0f} µs")
    if result["routed_ratio"] is not None:
        lines.append(f"routed / gateway: {result['routed_ratio']:.2f}")
    for path, took in result["exports"].items():
        lines.append(f"the sink took at {path}: {took['posts']:,} exports, {took['bytes']:,} bytes")
    lines += [f"NOT A RESULT: {complaint}" for complaint in result["complaints"]]
    return "\n".join(lines)


def _cells(figures: dict[str, Any]) -> list[str]:
    return ["-" if figures[key] is None else format(figures[key], form) for _, key, form in _COLUMNS]


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<20}" + "".join(f"{cell:>13}" for cell in cells)


def save(result: dict[str, Any], folder: Path = RESULTS) -> str:
    """Writes it as JSON, named by its time; returns the file's name relative to the working folder where possible."""
    folder.mkdir(exist_ok=True)
    file = folder / f"bench-{str(result['when']).replace(':', '')}.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
