"""A record's JSON line: who and when first, then the record's fields as they are."""

import time
from typing import Any

import orjson

from observability import names
from observability.record import Attempt, Record

_LEVELS = {names.OUTCOME_OK: "info", names.OUTCOME_GATEWAY_ERROR: "error"}
"""By outcome; all others are warnings."""


_TRIED = ("service", "model", "status", "verdict", "error")


def _tried(attempt: Attempt) -> dict[str, Any]:
    """An attempt as the line has it; what is unknown is absent."""
    told = {name: attempt[name] for name in _TRIED if name in attempt}  # type: ignore[literal-required]
    return {**told, "duration_ms": round((attempt["end_ns"] - attempt["start_ns"]) / 1e6, 3)}


class LineEncoder:
    """Makes lines; holds the text of the current second, which all its records share."""

    def __init__(self, *, latest: bool = False) -> None:
        """`latest`: with the names of the latest conventions, as the spans."""
        self._renamed = names.LATEST if latest else {}
        self._second = -1
        self._prefix = ""

    def encode(self, record: Record) -> bytes:
        """One line with its newline. The timestamp is the end of the exchange."""
        fields = record["fields"]
        line: dict[str, Any] = {
            names.TIMESTAMP: self._timestamp(record["end_ns"]),
            names.LEVEL: _LEVELS.get(fields.get(names.SLUICEWAY_OUTCOME, ""), "warning"),
            names.EVENT: names.EVENT_REQUEST,
            names.TRACE_ID: record["trace_id"],
            names.SPAN_ID: record["span_id"],
            **fields,
        }
        attempts = record.get("attempts", ())
        if len(attempts) > 1:  # where there is no tracing backend, this is where one sees why a request went elsewhere
            line[names.SLUICEWAY_TRIED] = [_tried(attempt) for attempt in attempts]
        for name, renamed in self._renamed.items():
            if name in line:
                line[renamed] = line.pop(name)
        labels = record.get("labels")
        if labels:
            for label, value in labels.items():
                line[names.SLUICEWAY_LABEL_PREFIX + label] = value
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _timestamp(self, unix_ns: int) -> str:
        second, rest_ns = divmod(unix_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{rest_ns // 1_000_000:03d}Z"
