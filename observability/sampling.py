"""The head sampler, decided once in the worker for both spans of a request, and the caller's trace context.

The SDK's own sampler costs 3 µs and its import 20 MB a worker; this is the same rule for the same variables
(`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`). Trace context: W3C Trace Context, level 1.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from multidict import MultiMapping, istr

_PARENT: Final = istr("traceparent")
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
MAX_TRACESTATE_CHARACTERS: Final = 512
"""The specification asks to carry at least 512; more is somebody else's luggage."""
MAX_TRACESTATE_MEMBERS: Final = 32
"""More make the list invalid, by the specification."""
_TRACE_ID_SPACE: Final = 1 << 64
_ROOTS: Final = ("always_on", "always_off", "traceidratio")
DEFAULT_SAMPLER: Final = "parentbased_always_on"


class TraceContext(NamedTuple):
    """Where a request stands in its caller's trace."""

    trace_id: str
    parent_span_id: str | None
    tracestate: str | None
    caller_sampled: bool | None
    """None: the caller said nothing (or nothing valid), and this is a new trace."""


def trace_context(headers: MultiMapping[str], fresh_trace_id: str) -> TraceContext:
    """Continue the caller's trace, or begin one (32 hex digits) where `traceparent` is absent, invalid or double."""
    header = headers.get(_PARENT)
    if header is None:
        return TraceContext(fresh_trace_id, None, None, None)
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is not None and len(headers.getall("traceparent")) == 1:
        version, trace_id, span_id, flags, rest = match.groups()
        valid = version != "ff" and (version != "00" or not rest)
        if valid and trace_id.strip("0") and span_id.strip("0"):
            return TraceContext(trace_id, span_id, _tracestate(headers), bool(int(flags, 16) & 1))
    return TraceContext(fresh_trace_id, None, None, None)


def _tracestate(headers: MultiMapping[str]) -> str | None:
    """All lines as one list; None where there is none, or one that may not be: the trace goes on without it."""
    state = ",".join(headers.getall("tracestate", ()))
    if not 0 < len(state) <= MAX_TRACESTATE_CHARACTERS or state.count(",") >= MAX_TRACESTATE_MEMBERS:
        return None
    return state if state.isascii() and state.isprintable() else None


Sampler = Callable[[TraceContext], bool]


def sampler(environ: Mapping[str, str]) -> Sampler:
    """The sampler that the standard variables name; the default is parentbased_always_on, as in the SDK."""
    name, ratio, _ = _settings(environ)
    root = _root(name.removeprefix("parentbased_"), ratio)
    if not name.startswith("parentbased_"):
        return root
    return lambda context: root(context) if context.caller_sampled is None else context.caller_sampled


def sampler_complaints(environ: Mapping[str, str]) -> list[str]:
    """What in the variables is not understood: the default stands in its place."""
    return _settings(environ)[2]


def _settings(environ: Mapping[str, str]) -> tuple[str, float, list[str]]:
    complaints: list[str] = []
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or DEFAULT_SAMPLER
    if name.removeprefix("parentbased_") not in _ROOTS:
        right = ", ".join(_ROOTS)
        complaints.append(f"OTEL_TRACES_SAMPLER: {name} is not built; {right}, with or without parentbased_, are")
        name = DEFAULT_SAMPLER
    ratio, argument = 1.0, environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if argument and name.endswith("traceidratio"):
        try:
            ratio = float(argument)
        except ValueError:
            ratio = -1.0
        if not 0.0 <= ratio <= 1.0:
            complaints.append(f"OTEL_TRACES_SAMPLER_ARG: {argument} is no number from 0 to 1; 1 is used")
            ratio = 1.0
    return name, ratio, complaints


def _root(name: str, ratio: float) -> Sampler:
    if name == "always_off":
        return lambda _: False
    if name == "always_on":
        return lambda _: True
    bound = round(ratio * _TRACE_ID_SPACE)
    return lambda context: int(context.trace_id[16:], 16) < bound
