"""What follows from how an attempt ended, and whom it counts against: the verdict table of the architecture (§5).

One pure function, `judge`: facts in, verdict and blame out; whoever retries, cools down, counts or logs reads the same
answer. It knows one attempt and its operation. What it cannot know stays with the attempt loop: `max_attempts`, and
whether there is a next target; where there is none, the last answer that any attempt received goes to the client.

What may be sent twice: everything, as long as the first sending cannot have had an effect. That is so where no byte
went out, where the upstream refused outright (REFUSALS), where a kept-alive connection died unread, and for operations
that are replayable and create no job even after a 500, a reset or a deadline.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Verdict(StrEnum):
    """What to do after an attempt."""

    DONE = "done"
    """The upstream answered, and the answer goes to the client: also a 400 or a 500 that is passed through. What the
    answer said is in the attempt's status; there is no verdict of its own for it."""
    SAME_TARGET = "same_target"
    """Once more to the same target with the same key, on a fresh connection."""
    NEXT_KEY = "next_key"
    """Once more to the same service with its next key."""
    NEXT_TARGET = "next_target"
    """To the next target."""
    GIVE_UP = "give_up"
    """The upstream did not answer and nothing more may be tried: an error of the gateway's own goes to the client."""
    CUT = "cut"
    """After commit: the client's connection is broken off."""
    CLIENT_LEFT = "client_left"
    """Nobody is there to answer: the upstream connection is closed."""


class Blame(StrEnum):
    """Whom an attempt counts against. Where the upstream answered, whoever is not blamed has shown that it works."""

    NONE = "none"
    KEY = "key"
    """Refused: it cools down at once."""
    SERVICE = "service"
    """Failed: it cools down when that happens repeatedly."""


class Facts(NamedTuple):
    """How one attempt ended. What happened is the first of these that is set: `client_left`, `failure`, `error_event`,
    `status`."""

    failure: str | None = None
    """The kind of the GatewayError that ended the attempt (`proxy.errors`)."""
    status: int | None = None
    """Of the final response head, where one came."""
    error_event: bool = False
    """The answer is a 200 stream whose first event is an error."""
    client_left: bool = False
    excused: bool = False
    """The failure is none of the target's: the gateway cannot use it for this request, or not now."""

    sent: bool = True
    """Any byte of the request was handed to the upstream connection."""
    response_started: bool = False
    """Any byte of a response came."""
    connection_reused: bool = False
    """The connection had served a request before."""
    committed: bool = False
    """The response head went to the client."""

    tape_whole: bool = False
    """The body can be read from its first byte again; true where there is none."""
    already_retried: bool = False
    """SAME_TARGET was given before in this exchange."""
    own_key: bool = True
    """The credential was one of the service's `api_keys`; false where the caller's own went upstream (passthrough)."""
    key_left: bool = True
    """The service has a further key that this exchange has not tried and that is not cooling down."""

    replayable: bool = True
    """Of the operation, as the next."""
    creates_job: bool = False
    fallback_on: frozenset[int] = frozenset()
    """Statuses of the Model API that lead to the next target."""


class Judgement(NamedTuple):
    verdict: Verdict
    blames: Blame


UPSTREAM_FAILURES: Final = frozenset(
    (
        "connect_failed",
        "upstream_protocol",
        "upstream_reset",
        "upstream_truncated",
        "upstream_timeout",
        "first_packet_timeout",
        "first_token_timeout",
    )
)
"""Kinds that another target may be spared from. All others are the gateway's own or the client's doing, and final."""
KEY_REFUSALS: Final = frozenset((401, 403, 429))
"""Statuses that speak of the credential: unknown, not allowed, used up."""
REFUSALS: Final = KEY_REFUSALS | {503}
"""Statuses that say that nothing was done, so that not even a job was created."""


def judge(facts: Facts) -> Judgement:
    """The verdict on one attempt, and whom it counts against."""
    if facts.client_left:
        return Judgement(Verdict.CLIENT_LEFT, Blame.NONE)
    if facts.failure is not None:
        return _after_failure(facts, facts.failure)
    return Judgement(_after_answer(facts), _blame_of_answer(facts))


def _after_failure(facts: Facts, failure: str) -> Judgement:
    """The attempt broke off, or a deadline ran out."""
    if failure not in UPSTREAM_FAILURES and (facts.committed or not facts.excused):
        return Judgement(Verdict.CUT if facts.committed else Verdict.GIVE_UP, Blame.NONE)
    if facts.committed:
        return Judgement(Verdict.CUT, Blame.NONE if facts.excused else Blame.SERVICE)
    # A server may close an idle connection at the very moment a request is written to it: no byte of an answer comes
    # and most likely none was read, but nobody can tell (RFC 9112 §9.3.1). So a job is not sent again even then.
    died_idle = failure == "upstream_protocol" and facts.connection_reused and not facts.response_started
    if died_idle and not facts.already_retried:
        again = facts.tape_whole and not (facts.creates_job and facts.sent)
        return Judgement(Verdict.SAME_TARGET if again else Verdict.GIVE_UP, Blame.NONE)
    again = facts.tape_whole and (not facts.sent or _harmless_twice(facts))
    blames = Blame.NONE if died_idle or facts.excused else Blame.SERVICE
    return Judgement(Verdict.NEXT_TARGET if again else Verdict.GIVE_UP, blames)


def _after_answer(facts: Facts) -> Verdict:
    """A response head came, and of a stream perhaps the first event."""
    if facts.committed or not facts.tape_whole:
        return Verdict.DONE
    if facts.error_event:
        return Verdict.NEXT_TARGET if _harmless_twice(facts) else Verdict.DONE
    if facts.status in KEY_REFUSALS and facts.own_key and facts.key_left:
        return Verdict.NEXT_KEY
    if facts.status in facts.fallback_on and (facts.status in REFUSALS or _harmless_twice(facts)):
        return Verdict.NEXT_TARGET
    return Verdict.DONE


def _blame_of_answer(facts: Facts) -> Blame:
    """A 200 blames nobody even if it begins with an error event: providers report a client's own mistakes that way
    too, and whoever sends five of them must not take the service away from all others."""
    if facts.status is None:
        return Blame.NONE
    if facts.status in KEY_REFUSALS:
        return Blame.KEY if facts.own_key else Blame.NONE
    return Blame.SERVICE if facts.status >= 500 else Blame.NONE


def _harmless_twice(facts: Facts) -> bool:
    return facts.replayable and not facts.creates_job
