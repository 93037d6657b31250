"""The verdict table of the architecture (§5): every row in every column, and what must hold for all facts there are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CUTS, KINDS
from proxy.verdict import KEY_REFUSALS, UPSTREAM_FAILURES, Blame, Facts, Judgement, Verdict, judge

FALLBACK_ON = frozenset((429, 500, 502, 503, 504, 529))
"""The contract's default."""

DONE, SAME, KEY, NEXT, GIVE_UP, CUT, LEFT = (
    Verdict.DONE,
    Verdict.SAME_TARGET,
    Verdict.NEXT_KEY,
    Verdict.NEXT_TARGET,
    Verdict.GIVE_UP,
    Verdict.CUT,
    Verdict.CLIENT_LEFT,
)
NOBODY, THE_KEY, SERVICE = Blame.NONE, Blame.KEY, Blame.SERVICE

DIED = {"failure": "upstream_protocol"}
IDLE = {**DIED, "connection_reused": True}
STATED = {"response_started": True}
UNUSABLE: dict[str, Any] = {"failure": "bad_request", "excused": True}

# what happened → the facts; then the verdict for a call that is replayable, for one that creates a job, for a
# replayable one whose tape is not whole, and after commit; last, whom it counts against.
TABLE: dict[str, tuple[dict[str, Any], Verdict, Verdict, Verdict, Verdict | None, Blame]] = {
    # DNS, refused, TLS, connect timeout: nothing was sent
    "no connection": ({"failure": "connect_failed", "sent": False}, NEXT, NEXT, GIVE_UP, None, SERVICE),
    # reused connection closed before any response byte
    "reused, closed": (IDLE, SAME, GIVE_UP, GIVE_UP, None, NOBODY),
    "reused, closed before we wrote": ({**IDLE, "sent": False}, SAME, SAME, GIVE_UP, None, NOBODY),
    "reused, closed, retried before": ({**IDLE, "already_retried": True}, NEXT, GIVE_UP, GIVE_UP, None, NOBODY),
    "reused, closed within the head": ({**IDLE, **STATED}, NEXT, GIVE_UP, GIVE_UP, None, SERVICE),
    "reused, silent": ({**IDLE, "failure": "upstream_timeout"}, NEXT, GIVE_UP, GIVE_UP, CUT, SERVICE),
    # fresh connection closed, deadlines, before commit and after
    "fresh, closed": (DIED, NEXT, GIVE_UP, GIVE_UP, None, SERVICE),
    "fresh, closed before we wrote": ({**DIED, "sent": False}, NEXT, NEXT, GIVE_UP, None, SERVICE),
    "fresh, malformed": ({**DIED, **STATED}, NEXT, GIVE_UP, GIVE_UP, CUT, SERVICE),
    "fresh, closed, after the same target": ({**DIED, "already_retried": True}, NEXT, GIVE_UP, GIVE_UP, None, SERVICE),
    "reset": ({"failure": "upstream_reset", "status": 200, **STATED}, NEXT, GIVE_UP, GIVE_UP, CUT, SERVICE),
    "truncated": ({"failure": "upstream_truncated", "status": 200, **STATED}, NEXT, GIVE_UP, GIVE_UP, CUT, SERVICE),
    "idle timeout": ({"failure": "upstream_timeout"}, NEXT, GIVE_UP, GIVE_UP, CUT, SERVICE),
    "first packet": ({"failure": "first_packet_timeout"}, NEXT, GIVE_UP, GIVE_UP, None, SERVICE),
    "first token": ({"failure": "first_token_timeout", "status": 200, **STATED}, NEXT, GIVE_UP, GIVE_UP, None, SERVICE),
    # the gateway's own errors and the client's, found while the request was under way
    "body too large": ({"failure": "body_too_large"}, GIVE_UP, GIVE_UP, GIVE_UP, CUT, NOBODY),
    "upload stalled": ({"failure": "client_timeout"}, GIVE_UP, GIVE_UP, GIVE_UP, CUT, NOBODY),
    "our own bug": ({"failure": "internal"}, GIVE_UP, GIVE_UP, GIVE_UP, CUT, NOBODY),
    "no way to send it there": ({**UNUSABLE, "sent": False}, NEXT, NEXT, GIVE_UP, None, NOBODY),
    "no way to send its rest there": (UNUSABLE, NEXT, GIVE_UP, GIVE_UP, None, NOBODY),
    # a status on the fallback list, or an error as the first event
    "500": ({"status": 500}, NEXT, DONE, DONE, DONE, SERVICE),
    "502": ({"status": 502}, NEXT, DONE, DONE, DONE, SERVICE),
    "503": ({"status": 503}, NEXT, NEXT, DONE, DONE, SERVICE),
    "504": ({"status": 504}, NEXT, DONE, DONE, DONE, SERVICE),
    "529": ({"status": 529}, NEXT, DONE, DONE, DONE, SERVICE),
    "error event": ({"status": 200, "error_event": True}, NEXT, DONE, DONE, DONE, NOBODY),
    # a key that is refused
    "401": ({"status": 401}, KEY, KEY, DONE, DONE, THE_KEY),
    "403": ({"status": 403}, KEY, KEY, DONE, DONE, THE_KEY),
    "429": ({"status": 429}, KEY, KEY, DONE, DONE, THE_KEY),
    "401, no other key": ({"status": 401, "key_left": False}, DONE, DONE, DONE, DONE, THE_KEY),
    "403, no other key": ({"status": 403, "key_left": False}, DONE, DONE, DONE, DONE, THE_KEY),
    "429, no other key": ({"status": 429, "key_left": False}, NEXT, NEXT, DONE, DONE, THE_KEY),
    "401, the caller's own key": ({"status": 401, "own_key": False}, DONE, DONE, DONE, DONE, NOBODY),
    "429, the caller's own key": ({"status": 429, "own_key": False}, NEXT, NEXT, DONE, DONE, NOBODY),
    # any other status is final
    "200": ({"status": 200}, DONE, DONE, DONE, DONE, NOBODY),
    "301": ({"status": 301}, DONE, DONE, DONE, DONE, NOBODY),
    "400": ({"status": 400}, DONE, DONE, DONE, DONE, NOBODY),
    "404": ({"status": 404}, DONE, DONE, DONE, DONE, NOBODY),
    "501": ({"status": 501}, DONE, DONE, DONE, DONE, SERVICE),
    # client left
    "left": ({"client_left": True}, LEFT, LEFT, LEFT, LEFT, NOBODY),
    "left during a 503": ({"client_left": True, "status": 503}, LEFT, LEFT, LEFT, LEFT, NOBODY),
    "left during a failure": ({"client_left": True, "failure": "upstream_reset"}, LEFT, LEFT, LEFT, LEFT, NOBODY),
}
"""None: cannot be after commit."""


@pytest.mark.parametrize(("happened", "replayable", "job", "lost", "committed", "blames"), TABLE.values(), ids=TABLE)
def test_the_table(
    happened: dict[str, Any], replayable: Verdict, job: Verdict, lost: Verdict, committed: Verdict | None, blames: Blame
) -> None:
    facts = Facts(**happened, tape_whole=True, fallback_on=FALLBACK_ON)
    assert judge(facts) == Judgement(replayable, blames)
    assert judge(facts._replace(creates_job=True)) == Judgement(job, blames)
    assert judge(facts._replace(tape_whole=False)) == Judgement(lost, blames)
    if committed is not None:
        assert judge(facts._replace(committed=True)) == Judgement(committed, blames)


@pytest.mark.parametrize(
    ("happened", "verdict"),
    [
        (IDLE, SAME),  # most likely unread; only a job would be worse twice than not at all
        (DIED, GIVE_UP),
        ({"failure": "connect_failed", "sent": False}, NEXT),
        ({"failure": "first_token_timeout"}, GIVE_UP),
        ({"status": 500}, DONE),
        ({"status": 503}, NEXT),
        ({"status": 429}, KEY),
        ({"status": 200, "error_event": True}, DONE),
    ],
)
def test_a_call_that_is_not_replayable(happened: dict[str, Any], verdict: Verdict) -> None:
    facts = Facts(**happened, tape_whole=True, replayable=False, fallback_on=FALLBACK_ON)
    assert judge(facts).verdict is verdict


def test_the_fallback_list_is_the_model_apis() -> None:
    whole = Facts(tape_whole=True)
    assert judge(whole._replace(status=404, fallback_on=frozenset((404,)))) == (NEXT, NOBODY)
    assert judge(whole._replace(status=404, fallback_on=frozenset((404,)), creates_job=True)) == (DONE, NOBODY)
    assert judge(whole._replace(status=503)) == (DONE, SERVICE)
    refused = whole._replace(status=401, key_left=False, creates_job=True)
    assert judge(refused._replace(fallback_on=frozenset((401,)))) == (NEXT, THE_KEY)


def test_every_upstream_failure_has_a_kind() -> None:
    named = {kind for kind, facts in (*KINDS.items(), *CUTS.items()) if facts.outcome.startswith("upstream_")}
    assert named - {"no_service_available"} == UPSTREAM_FAILURES


AGAIN = frozenset((SAME, KEY, NEXT))

any_facts = st.builds(
    Facts,
    failure=st.none() | st.sampled_from(sorted(KINDS.keys() | CUTS.keys())),
    status=st.none() | st.sampled_from((200, 301, 400, 401, 403, 404, 408, 429, 500, 501, 502, 503, 504, 529)),
    error_event=st.booleans(),
    client_left=st.booleans(),
    excused=st.booleans(),
    sent=st.booleans(),
    response_started=st.booleans(),
    connection_reused=st.booleans(),
    committed=st.booleans(),
    tape_whole=st.booleans(),
    already_retried=st.booleans(),
    own_key=st.booleans(),
    key_left=st.booleans(),
    replayable=st.booleans(),
    creates_job=st.booleans(),
    fallback_on=st.frozensets(st.sampled_from((400, 401, 403, 404, 429, 500, 502, 503, 504, 529))),
)


@given(any_facts)
def test_a_job_is_never_sent_again_once_it_may_exist(facts: Facts) -> None:
    if judge(facts._replace(creates_job=True)).verdict in AGAIN and facts.sent:
        assert facts.failure is None
        assert facts.status in {401, 403, 429, 503}
        assert not facts.error_event


@given(any_facts)
def test_nothing_is_tried_after_commit_or_after_the_client_left(facts: Facts) -> None:
    assert judge(facts._replace(committed=True)).verdict in {DONE, CUT, LEFT}
    assert judge(facts._replace(client_left=True)) == (LEFT, NOBODY)


@given(any_facts)
def test_what_is_not_held_is_not_sent_again(facts: Facts) -> None:
    assert judge(facts._replace(tape_whole=False)).verdict not in AGAIN


@given(any_facts)
def test_the_same_target_is_tried_again_once_and_only_after_silence(facts: Facts) -> None:
    if judge(facts).verdict is SAME:
        assert not facts.already_retried
        assert facts.connection_reused
        assert not facts.response_started
        assert judge(facts).blames is NOBODY


@given(any_facts)
def test_an_answer_is_never_replaced_by_an_invented_one(facts: Facts) -> None:
    """Whoever got an answer passes it on or tries again; whoever got none has nothing to pass on."""
    verdict = judge(facts._replace(client_left=False)).verdict
    answered = {DONE, KEY, NEXT}
    assert verdict in (answered if facts.failure is None else {SAME, NEXT, GIVE_UP, CUT})


@given(any_facts)
def test_keys_and_services_are_blamed_for_what_is_theirs(facts: Facts) -> None:
    blames = judge(facts).blames
    if blames is THE_KEY:
        assert facts.own_key
        assert facts.failure is None
        assert facts.status in KEY_REFUSALS
    if blames is SERVICE:
        assert facts.failure is None or not facts.excused
        assert facts.failure in UPSTREAM_FAILURES or (facts.failure is None and (facts.status or 0) >= 500)


@given(any_facts)
def test_whom_it_counts_against_does_not_hang_on_what_is_tried_next(facts: Facts) -> None:
    """The blame is the upstream's deed: not the body's size, not the operation, not the fallback list."""
    other = facts._replace(tape_whole=not facts.tape_whole, replayable=not facts.replayable, fallback_on=frozenset())
    assert judge(facts).blames is judge(other._replace(creates_job=not facts.creates_job)).blames
