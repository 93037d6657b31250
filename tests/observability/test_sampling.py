"""The caller's trace context and the head sampler."""

import pytest
from multidict import CIMultiDict

from observability.sampling import MAX_TRACESTATE_CHARACTERS, TraceContext, sampler, sampler_complaints, trace_context

FRESH = "f" * 32
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


def context_of(*lines: tuple[str, str]) -> TraceContext:
    return trace_context(CIMultiDict(lines), FRESH)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], None),
        (["a=1"], "a=1"),
        (["a=1,b=2"], "a=1,b=2"),
        (["a=1", "b=2"], "a=1,b=2"),
        ([""], None),
        (["a=\udcff"], None),
        (["a=é"], None),
        ([",".join(f"{number}=1" for number in range(32))], ",".join(f"{number}=1" for number in range(32))),
        ([",".join(f"{number}=1" for number in range(33))], None),
        (["a=\x7f"], None),
        (["a=" + "x" * (MAX_TRACESTATE_CHARACTERS - 2)], "a=" + "x" * (MAX_TRACESTATE_CHARACTERS - 2)),
        (["a=" + "x" * (MAX_TRACESTATE_CHARACTERS - 1)], None),
    ],
)
def test_the_callers_state_goes_on_where_it_may(states, expected):
    context = context_of(("Traceparent", VALID), *(("tracestate", state) for state in states))
    assert context == TraceContext(TRACE, PARENT, expected, True)


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        ["00-" + "0" * 32 + f"-{PARENT}-01"],
        [f"00-{TRACE}-" + "0" * 16 + "-01"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [VALID, VALID],
        [VALID, "junk"],
    ],
)
def test_a_trace_begins_where_the_callers_cannot_be_continued(parents):
    lines = [("traceparent", parent) for parent in parents]
    assert context_of(*lines, ("tracestate", "a=1")) == TraceContext(FRESH, None, None, None)


def test_a_later_version_may_say_more():
    assert context_of(("traceparent", f"01-{TRACE}-{PARENT}-00-more")) == TraceContext(TRACE, PARENT, None, False)


NEW, SAMPLED, UNSAMPLED = (TraceContext("8" * 32, None, None, caller) for caller in (None, True, False))


@pytest.mark.parametrize(
    ("name", "argument", "decisions", "complaints"),
    [
        ("", "", (True, True, False), 0),
        ("parentbased_always_on", "", (True, True, False), 0),
        ("parentbased_always_off", "", (False, True, False), 0),
        (" Always_On ", "", (True, True, True), 0),
        ("always_off", "", (False, False, False), 0),
        ("traceidratio", "0.5", (False, False, False), 0),
        ("traceidratio", "0.54", (True, True, True), 0),
        ("parentbased_traceidratio", "0", (False, True, False), 0),
        ("traceidratio", "", (True, True, True), 0),
        ("traceidratio", "half", (True, True, True), 1),
        ("traceidratio", "-1", (True, True, True), 1),
        ("traceidratio", "nan", (True, True, True), 1),
        ("xyz", "", (True, True, False), 1),
        ("parentbased_jaeger_remote", "", (True, True, False), 1),
    ],
)
def test_the_sampler_that_the_variables_name(name, argument, decisions, complaints):
    environ = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
    sample = sampler(environ)
    assert tuple(sample(context) for context in (NEW, SAMPLED, UNSAMPLED)) == decisions
    assert len(sampler_complaints(environ)) == complaints
