"""Puts recorded content into a record: messages under the names of the contract, as JSON."""

from typing import Any, Final

from observability import names
from observability.content.capture import ANSWER, FAILED, NO_ROOM, REQUEST
from observability.facts import Facts
from observability.observer.content.fit import Fitted, fit
from observability.observer.content.load import load
from observability.observer.content.messages import answered, asked
from observability.observer.content.stash import Contents
from observability.record import Record

_SIDES: Final = ((REQUEST[0], names.SLUICEWAY_CONTENT_INPUT_BYTES), (ANSWER[0], names.SLUICEWAY_CONTENT_OUTPUT_BYTES))
_KEPT_NOTHING: Final = {NO_ROOM: "overload", FAILED: "failed"}
"""A worker held too much content, or could not keep it."""
_SHED: Final = "shed"
"""It did not come: too much waited for the observer, or a connection broke."""
_NOT_REDACTED: Final = "redaction"


def attach(record: Record, facts: Facts, contents: Contents, limit: int | None = None) -> str | None:
    """Add what was recorded of an exchange. Answers why something of it is missing altogether, None if nothing is.

    `limit`: of each field, where attributes of spans have one, which would cut JSON anywhere.
    """
    assert facts.content is not None
    max_bytes, *sides = facts.content
    if limit is not None:
        max_bytes = min(max_bytes, limit)
    held = contents.claim(facts.request_id)
    redaction = contents.redaction
    lost: str | None = None
    for (side, size_name), said in zip(_SIDES, sides, strict=True):
        if said is None or said[2] == 0:
            continue
        kind, cut, size = said
        data = held.get(side, b"")
        if len(data) != size or redaction is None:
            lost = _KEPT_NOTHING.get(size) or (_SHED if redaction is not None else _NOT_REDACTED)
            continue
        tree = load(bytes(data), facts.request_id, redaction, is_json=kind == "J", cut=cut)
        fitted = _input(record, tree, max_bytes) if side == REQUEST[0] else _output(record, facts, tree, max_bytes)
        if fitted.cut or cut:
            record["fields"][names.SLUICEWAY_CONTENT_TRUNCATED] = True
            record["fields"][size_name] = fitted.bytes
    return lost


def _input(record: Record, tree: Any, max_bytes: int) -> Fitted:
    fields = record["fields"]
    messages, system = asked(tree)
    said = fit(system, max_bytes // 4) if system else None
    if said is not None:
        fields[names.GEN_AI_SYSTEM_INSTRUCTIONS] = said.json
    fitted = fit(messages, max_bytes - (len(said.json.encode()) if said is not None else 0))
    if messages:
        fields[names.GEN_AI_INPUT_MESSAGES] = fitted.json
    if said is None:
        return fitted
    return Fitted("", fitted.bytes + said.bytes, fitted.cut or said.cut)


def _output(record: Record, facts: Facts, tree: Any, max_bytes: int) -> Fitted:
    fields = record["fields"]
    found = facts.findings
    failed = facts.upstream_status >= 400 or facts.outcome == names.OUTCOME_UPSTREAM_ERROR
    failed = failed or (found is not None and found.error_code is not None)
    messages = answered(tree, whole=not failed and facts.outcome == names.OUTCOME_OK)
    error = None
    if failed:
        if isinstance(tree, dict) and messages:  # something was said before it
            error = tree.get("error")
        else:
            error, messages = tree, []
    said = fit(messages, max_bytes) if messages else Fitted("", 0, False)
    if messages:
        fields[names.GEN_AI_OUTPUT_MESSAGES] = said.json
    if error is None:
        return said
    body = fit([error], max_bytes - len(said.json.encode()))
    if body.json != "[]":  # else there is no room for it
        fields[names.SLUICEWAY_ERROR_BODY] = body.json[1:-1]
    return Fitted("", said.bytes + body.bytes - 2, said.cut or body.cut)  # without its brackets
