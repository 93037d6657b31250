"""Exemplars: for each bucket of a histogram a trace of which one knows that it was there. From observers to /metrics.

Each observer writes what it has seen last into one small file, every few seconds; control joins them to the samples.
Losing one is losing a hint, so nothing is kept longer than its process and its file.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from prometheus_client import Metric
from prometheus_client.samples import Exemplar

EXEMPLARS_MAX: Final = 2000
"""In one file: 0.5 MB. A chat model has some 30 buckets in use, so that is 60 models."""

WRITE_EVERY_S: Final = 5.0
"""Well below a scrape's interval; writing a full file takes 2 ms."""

FILTER: Final = "OTEL_METRICS_EXEMPLAR_FILTER"


class Trace(NamedTuple):
    """Where to find the request."""

    trace_id: str
    span_id: str
    at: float
    """Unix time, s."""


class Seen(NamedTuple):
    """One exemplar."""

    family: str
    labels: dict[str, str]
    """`le` among them."""
    value: float
    trace: Trace


def wanted(environ: Mapping[str, str]) -> bool:
    """Are exemplars on? They are of sampled requests, as trace_based says, the default."""
    return environ.get(FILTER, "").strip().lower() != "always_off"


def file_of(folder: Path, index: int) -> Path:
    """Of observer `index`, in the folder of the metrics."""
    return folder / f"exemplars-{index}.json"


class ExemplarFile:
    """The writing side, one for each observer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""

    def write(self, seen: Iterable[Seen]) -> None:
        """Put the first EXEMPLARS_MAX in place of those before. Raises OSError where the disk has no room."""
        data = orjson.dumps([[*one[:3], *one.trace] for one in islice(seen, EXEMPLARS_MAX)])
        if data != self._written:
            new = self._path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(self._path)
            self._written = data


def with_exemplars(families: Iterable[Metric], folder: Path) -> Iterable[Metric]:
    """The families with the latest exemplar of any observer at each bucket. What does not read is left out."""
    known: dict[tuple[str, frozenset[tuple[str, str]]], Exemplar] = {}
    for path in sorted(folder.glob("exemplars-*.json")):
        for name, labels, exemplar in _read(path):
            key = name, frozenset(labels.items())
            if key not in known or float(known[key].timestamp or 0) < float(exemplar.timestamp or 0):
                known[key] = exemplar
    for family in families:
        if known and family.type == "histogram":
            family.samples = [
                sample._replace(exemplar=known.get((family.name, frozenset(sample.labels.items()))))
                for sample in family.samples
            ]
        yield family


def _read(path: Path) -> list[tuple[str, dict[str, str], Exemplar]]:
    try:
        rows: Any = orjson.loads(path.read_bytes())
        return [
            (family, dict(labels), Exemplar({"trace_id": trace_id, "span_id": span_id}, float(value), float(at)))
            for family, labels, value, trace_id, span_id, at in rows
        ]
    except (OSError, ValueError, TypeError):
        return []
