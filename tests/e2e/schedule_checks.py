"""What has to be true of a request under any fault schedule: what was asked, got, recorded and seen fits together."""

import itertools
import re
from typing import NamedTuple

import orjson

from observability.record import Attempt, Record
from tests.e2e.schedule_services import Seen
from tests.e2e.schedules import Asked, Schedule

MARK = re.compile(rb"<s[0-9]:r[0-9]#[0-9]+>")
OWN_EVENT = re.compile(rb'(?:^|(?<=\n\n))data: {"error":{[^\n]*"code":"upstream_[a-z]+"}}\n\n$')
"""The gateway's last word in a stream that it cuts."""
SAME_SERVICE = {"same_target", "next_key"}
DEADLINES = {"first_packet_timeout", "first_token_timeout", "upstream_timeout"}
REJECTIONS = {"model_unknown", "body_too_large", "overloaded", "client_timeout"}
"""Of the gateway's own, that these schedules can bring about."""


class Got(NamedTuple):
    """What a client got, and whether it was there to the end."""

    data: bytes
    stayed: bool

    @property
    def answer(self) -> tuple[bytes, bytes, bool]:
        """Head, body without framing, and whether the framing says that it is whole."""
        head, ended, rest = self.data.partition(b"\r\n\r\n")
        if not ended:
            return b"", b"", False
        length = re.search(rb"\r\ncontent-length: ([0-9]+)", head, re.IGNORECASE)
        if length is not None:
            return head, rest, len(rest) == int(length[1])
        assert b"\r\nTransfer-Encoding: chunked" in head, f"a head without framing: {head!r}"
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if size == b"0":
                return head, body, rest == b"\r\n"
            count = int(size, 16) if size else 0
            body += rest[:count]
            rest = rest[count + 2 :]
        return head, body, False


def check(schedule: Schedule, asked: Asked, got: Got, record: Record, seen: list[Seen]) -> None:
    """All of it, for one request: `record` is its only one, `seen` what the services saw of it, in order."""
    own = asked.model.decode()  # in plans, and from here on, None is the client's own model
    attempts = [
        {**one, "model": None if one.get("model") == own else one.get("model")} for one in record.get("attempts", ())
    ]
    pairs = check_attempts(schedule, {**record, "attempts": attempts}, seen)
    check_errors(schedule, asked, pairs)
    check_nothing_is_left_untried(schedule, asked, pairs)
    check_jobs(asked, seen)
    check_bodies(asked, pairs)
    check_answer(got, record, seen)
    check_ending(got, record, pairs)


def fits(attempt: Attempt, seen: Seen) -> bool:
    """Can this attempt of the record be what that service saw?"""
    if attempt["service"] != seen.service:
        return False
    status = attempt.get("status")
    if status is not None:
        return seen.play.kind not in {"silence", "garbled"} and status == seen.play.status
    return True


def may_be_unseen(attempt: Attempt) -> bool:
    """The upstream need not have got the head: no connection, one that was dead, or an end that came too early."""
    if "status" in attempt:
        return False
    error = attempt.get("error")
    return error == "connect_failed" or error in DEADLINES or attempt["verdict"] in {"same_target", "client_left"}


Pairs = list[tuple[Attempt, Seen | None]]


def paired(attempts: list[Attempt], seen: list[Seen]) -> Pairs | None:
    """Each attempt with what a service saw of it, in order; None where these are not the same attempts."""
    if not attempts:
        return None if seen else []
    if seen and fits(attempts[0], seen[0]):
        rest = paired(attempts[1:], seen[1:])
        if rest is not None:
            return [(attempts[0], seen[0]), *rest]
    if may_be_unseen(attempts[0]):
        rest = paired(attempts[1:], seen)
        if rest is not None:
            return [(attempts[0], None), *rest]
    return None


def check_errors(schedule: Schedule, asked: Asked, pairs: Pairs) -> None:
    """No upstream is said to have failed that did not."""
    for attempt, seen in pairs:
        error = attempt.get("error")
        said = f"{error} of {seen}"
        if error == "connect_failed":
            assert not schedule.setup.listens(attempt["service"]), said
        elif error == "overloaded_now":
            assert seen is not None, said
            assert seen.play.kind == "error_event", said
        elif error in {"upstream_protocol", "upstream_reset", "upstream_truncated"}:
            assert seen is None or seen.play.broken or attempt["verdict"] == "same_target", said
        elif error in {"first_packet_timeout", "first_token_timeout"}:
            assert schedule.setup.model_api.get(f"{error}_ms"), said
            assert asked.kind in {"stream", "plain_stream"}, said
        else:
            assert error in {None, "upstream_timeout", *REJECTIONS}, said


def check_nothing_is_left_untried(schedule: Schedule, asked: Asked, pairs: Pairs) -> None:
    """An answer that another target could have bettered goes out only where there is none."""
    setup = schedule.setup
    if not pairs or pairs[-1][0]["verdict"] != "done" or asked.kind == "job" or setup.tape_is_short:
        return
    attempt, seen = pairs[-1]
    assert seen is not None
    refused = seen.play.prompt and seen.play.status in setup.model_api["fallback_on"]
    # what comes behind an error event is output, or may be more than is held: either commits
    if refused or (seen.play.kind == "error_event" and not seen.play.events and not seen.play.apart):
        counted = [one for one, _ in pairs if one["verdict"] != "same_target"]
        last = attempt["service"], attempt.get("model")
        tried = any(plan[-1] == last for plan in setup.plans) or len(counted) == setup.model_api.get("max_attempts", 4)
        assert tried, f"the client got {seen.play}, and there was more to try"


def check_attempts(schedule: Schedule, record: Record, seen: list[Seen]) -> Pairs:
    """The attempts are what the services saw, and as the configuration has them."""
    attempts = record.get("attempts", [])
    shown = [(one["service"], one["verdict"], one.get("status"), one.get("error")) for one in attempts]
    pairs = paired(attempts, seen)
    assert pairs is not None, f"the record says {shown}, the services saw {[(a.service, a.play) for a in seen]}"
    assert record["fields"].get("sluiceway.attempts", 0) == len(attempts)
    counted = [one for one in attempts if one["verdict"] != "same_target"]
    assert len(counted) <= schedule.setup.model_api.get("max_attempts", 4), f"too many attempts: {shown}"
    assert all(one["verdict"] in {"next_target", "next_key", "same_target"} for one in attempts[:-1]), shown
    for one in attempts:
        assert schedule.setup.listens(one["service"]) or one.get("error") == "connect_failed" or one is attempts[-1]
    turns = [
        (one["service"], one.get("model"))
        for number, one in enumerate(attempts)
        if not number or attempts[number - 1]["verdict"] not in SAME_SERVICE
    ]
    assert any(is_within(turns, plan) for plan in schedule.setup.plans), f"not as configured: {shown}"
    keys: set[str] = set()
    for (one, here), (following, there) in itertools.pairwise(pairs):
        if one["verdict"] in SAME_SERVICE:
            assert (one["service"], one.get("model")) == (following["service"], following.get("model")), shown
        if one["verdict"] == "next_key":
            assert here is not None
            assert here.play.status in {401, 403, 429}, shown
            keys.add(here.key)
            assert there is None or there.key not in keys, f"a key that was refused is tried again: {shown}"
        elif one["verdict"] == "next_target":
            keys.clear()
    return pairs


def is_within(turns: list[tuple[str, str | None]], plan: list[tuple[str, str | None]]) -> bool:
    """In the plan's order; targets that cool down are passed over."""
    left = iter(plan)
    return all(turn in left for turn in turns)


def check_bodies(asked: Asked, pairs: Pairs) -> None:
    """Each service got the client's body with its own model, and nothing else is different."""
    for attempt, seen in pairs:
        if seen is None:
            continue
        body, model = bytes(seen.body), attempt.get("model")
        expected = asked.body(None if model is None else model.encode())
        if asked.kind == "plain_stream":  # the gateway asks for usage in the client's place
            if seen.body_whole:
                usage = {"stream_options": {"include_usage": True}}
                assert orjson.loads(body) == orjson.loads(expected) | usage, f"{seen.mark!r} got another body"
        elif seen.body_whole:
            assert body == expected, f"{seen.mark!r} got another body: {body[-90:]!r}"
        else:
            assert expected.startswith(body), f"{seen.mark!r} got bytes that the client did not send"


def check_jobs(asked: Asked, seen: list[Seen]) -> None:
    if asked.kind == "job":
        for one in seen[:-1]:
            assert one.play.refuses, f"a job that {one.mark!r} may have made is sent again: {one.play}"


def check_answer(got: Got, record: Record, seen: list[Seen]) -> None:
    """What the client got is one answer, of one attempt or of the gateway."""
    head, body, whole = got.answer
    marks = set(MARK.findall(got.data))
    assert len(marks) <= 1, f"the client got bytes of several attempts: {marks}"
    if got.stayed:
        assert head, "the client stayed and got no answer"
    if not head:
        return
    fields, attempts = record["fields"], record.get("attempts", [])
    status = int(head.split(b" ")[1])
    assert fields["http.response.status_code"] == status
    if attempts:
        assert b"\r\nx-sluiceway-attempts: %d\r\n" % len(attempts) in head + b"\r\n"
    if b"\r\nx-sluiceway-error: " in head:
        assert not marks, "an error of the gateway's own, and bytes of an upstream"
        assert whole or not got.stayed
        return
    (mark,) = marks
    source = next((one for one in seen if one.mark == mark), None)
    assert source is not None, f"an answer to another request: {mark!r}"
    assert b"\r\nX-Mark: " + mark in head
    assert f"\r\nx-sluiceway-service: {source.service}\r\n".encode() in head
    assert status == source.play.status
    payload = source.play.payload(mark)
    if not whole:
        body = OWN_EVENT.sub(b"", body)
    assert payload.startswith(body), f"not what {mark!r} sent: {body[-90:]!r}"
    if whole:
        assert source.play.whole, f"an answer that was broken off looks whole: {source.play}"
        assert body == payload, f"it looks whole and lacks {len(payload) - len(body)} bytes"


def check_ending(got: Got, record: Record, pairs: Pairs) -> None:
    """The record says what became of the request."""
    head, _, whole = got.answer
    fields, attempts = record["fields"], record.get("attempts", [])
    outcome, error, last = fields["sluiceway.outcome"], fields.get("error.type"), [a["verdict"] for a in attempts[-1:]]
    said = f"{outcome} {error} after {[(one['service'], one['verdict'], one.get('error')) for one in attempts]}"
    own_error = b"\r\nx-sluiceway-error: " in head
    assert outcome in {"ok", "upstream_error", "upstream_aborted", "client_aborted", "rejected"}, said
    assert (error is not None) == (outcome in {"upstream_error", "upstream_aborted", "rejected"}), said
    if outcome == "rejected":
        assert error in REJECTIONS, said
    if outcome == "client_aborted":
        assert not attempts or last == ["client_left"], f"the client left: {said}"
    if not got.stayed:
        return
    assert outcome != "client_aborted", f"the client stayed: {said}"
    assert last != ["client_left"], f"the client stayed: {said}"
    assert (last == ["cut"]) == (outcome == "upstream_aborted") == (not whole), said
    if last == ["done"]:
        assert not own_error, said
    if outcome == "ok":
        assert last == ["done"], said
    if outcome in {"upstream_error", "upstream_aborted"}:
        clients = outcome == "upstream_error" and fields["http.response.status_code"] in {400, 413}
        assert fields["sluiceway.error.origin"] == ("client" if clients else "upstream"), said
    if outcome != "rejected":
        check_last_answer(head, own_error, pairs)


def check_last_answer(head: bytes, own_error: bool, pairs: Pairs) -> None:
    """Where nobody did it, the client gets the last answer that any attempt received."""
    came = [
        seen.mark
        for attempt, seen in pairs
        if seen is not None and seen.play.prompt and "status" in attempt and "error" not in attempt
    ]
    if came:
        assert not own_error, f"an answer came, {came[-1]!r}, and the client got an error of the gateway's own"
        after = [seen.mark for _, seen in pairs if seen is not None]
        (mark,) = MARK.findall(head)
        assert after.index(mark) >= after.index(came[-1]), f"not the last answer: {mark!r} of {after}"
