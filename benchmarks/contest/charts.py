"""Charts as SVG by hand: bars and lines, on logarithmic scales, because contestants are a thousandfold apart."""

from __future__ import annotations

import math
from html import escape

WIDTH, LEFT, RIGHT, TOP = 760, 130, 90, 44
BAR, HEIGHT = 26, 380
_OURS = "#1565c0"
_COLOURS = ("#78909c", "#8d6e63", "#7cb342", "#ef6c00", "#ab47bc", "#00897b", "#c62828", "#5c6bc0", "#455a64")


def _frame(height: int, title: str, inner: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)} (logarithmic)</text>'
    )
    return "\n".join([head, *inner, "</svg>"]) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten around what is shown."""
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def number(value: float) -> str:
    """As short as it may be."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bars(title: str, values: dict[str, float]) -> str:
    """One bar for each name, the longest first where it is so given; Sluiceway's are blue."""
    shown = {name: value for name, value in values.items() if value > 0}
    if not shown:
        return ""
    ticks = _ticks(min(shown.values()) / 1.5, max(shown.values()))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    height = TOP + BAR * len(shown) + 30
    across = (WIDTH - LEFT - RIGHT) / max(1e-9, high - low)
    inner = []
    for tick in ticks:
        x = LEFT + (math.log10(tick) - low) * across
        inner.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP}" y2="{height - 26}" stroke="#ddd"/>')
        inner.append(f'<text x="{x:.0f}" y="{height - 10}" text-anchor="middle" fill="#555">{number(tick)}</text>')
    for row, (name, value) in enumerate(shown.items()):
        y, length = TOP + row * BAR, (math.log10(value) - low) * across
        colour = _OURS if name.startswith("sluiceway") else "#90a4ae"
        inner.append(f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        inner.append(
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(1.0, length):.0f}" height="{BAR - 8}" fill="{colour}"/>'
        )
        inner.append(f'<text x="{LEFT + length + 6:.0f}" y="{y + 16}">{number(value)}</text>')
    return _frame(height, title, inner)


def lines(title: str, points: list[str], series: dict[str, list[float | None]]) -> str:
    """A line for each name over the points, which stand side by side."""
    known = [value for one in series.values() for value in one if value and value > 0]
    if not known or len(points) < 2:
        return ""
    ticks = _ticks(min(known), max(known))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    bottom = HEIGHT - 40
    step = (WIDTH - 70 - 140) / (len(points) - 1)

    def at(index: int, value: float) -> tuple[float, float]:
        return 70 + index * step, bottom - (math.log10(value) - low) / max(1e-9, high - low) * (bottom - TOP)

    inner = []
    for tick in ticks:
        _, y = at(0, tick)
        inner.append(f'<line x1="70" x2="{WIDTH - 140}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        inner.append(f'<text x="62" y="{y + 4:.0f}" text-anchor="end" fill="#555">{number(tick)}</text>')
    for index, name in enumerate(points):
        inner.append(f'<text x="{70 + index * step:.0f}" y="{bottom + 20}" text-anchor="middle">{escape(name)}</text>')
    for row, (name, values) in enumerate(series.items()):
        colour = _OURS if name == "sluiceway" else _COLOURS[row % len(_COLOURS)]
        there = [at(index, value) for index, value in enumerate(values) if value and value > 0]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in there)
        wide = 3 if name == "sluiceway" else 1.5
        inner.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"/>')
        y = TOP + 16 * row
        inner.append(f'<rect x="{WIDTH - 130}" y="{y}" width="10" height="10" fill="{colour}"/>')
        inner.append(f'<text x="{WIDTH - 114}" y="{y + 10}">{escape(name)}</text>')
    return _frame(HEIGHT, title, inner)
