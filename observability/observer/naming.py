"""A worker's facts under the names of the contract: `Facts` in, `Record` out. Pure.

Here and not in the worker, because it costs ten microseconds a request.
"""

import random
from typing import Any, Final

from observability import names
from observability.facts import AttemptFacts, Facts
from observability.findings import NOTHING_FOUND, Findings
from observability.prices import Price, cost_of
from observability.record import Attempt, Record

MODEL_CHARACTERS_MAX: Final = 256
"""Of the model a client asked for, which becomes a label of metrics. The longest names known have 80."""
METHOD_CHARACTERS_MAX: Final = 32
"""Of one that is none. The longest that is registered has 17."""
_USAGE_FIELDS: Final = (
    ("input_tokens", names.GEN_AI_USAGE_INPUT_TOKENS),
    ("raw_input_tokens", names.SLUICEWAY_USAGE_RAW_INPUT_TOKENS),
    ("output_tokens", names.GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cache_read_tokens", names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_creation_tokens", names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS),
    ("reasoning_tokens", names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
    ("image_tokens", names.SLUICEWAY_USAGE_IMAGE_TOKENS),
    ("video_tokens", names.SLUICEWAY_USAGE_VIDEO_TOKENS),
    ("audio_tokens", names.SLUICEWAY_USAGE_AUDIO_TOKENS),
    ("images", names.SLUICEWAY_USAGE_IMAGES),
    ("characters", names.SLUICEWAY_USAGE_CHARACTERS),
    ("seconds", names.SLUICEWAY_USAGE_SECONDS),
    ("videos", names.SLUICEWAY_USAGE_VIDEOS),
    ("documents", names.SLUICEWAY_USAGE_DOCUMENTS),
    ("image_width", names.SLUICEWAY_IMAGE_WIDTH),
    ("image_height", names.SLUICEWAY_IMAGE_HEIGHT),
    ("task_id", names.SLUICEWAY_TASK_ID),
    ("upstream_request_id", names.SLUICEWAY_UPSTREAM_REQUEST_ID),
    ("response_id", names.GEN_AI_RESPONSE_ID),
    ("response_model", names.GEN_AI_RESPONSE_MODEL),
)


def record_of(facts: Facts) -> Record:
    """The record of one exchange."""
    fields = _request_fields(facts)
    findings = facts.findings or NOTHING_FOUND
    if facts.findings is not None:
        _add_findings(fields, facts, findings)
    if facts.upstream_request_id is not None and names.SLUICEWAY_UPSTREAM_REQUEST_ID not in fields:
        fields[names.SLUICEWAY_UPSTREAM_REQUEST_ID] = facts.upstream_request_id
    if facts.route_fields is not None:
        fields[names.SLUICEWAY_USAGE_SOURCE] = _usage_source(fields, facts, findings)
    if facts.price is not None:
        _add_cost(fields, Price._make(facts.price))
    _add_times(fields, facts)
    to_unix_ns = facts.accepted_unix_ns - facts.accepted_ns
    record: Record = {
        "fields": fields,
        "start_ns": facts.accepted_unix_ns,
        "end_ns": facts.end_ns + to_unix_ns,
        "trace_id": facts.trace_id,
        "span_id": facts.span_id,
        "sampled": facts.sampled,
        "tracing": facts.tracing,
        "logging": facts.logging,
        "metrics": facts.metrics,
    }
    if facts.parent_span_id is not None:
        record["parent_span_id"] = facts.parent_span_id
    if facts.tracestate is not None:
        record["tracestate"] = facts.tracestate
    if facts.compat:
        record["compat"] = facts.compat
    if facts.labels:
        record["labels"] = facts.labels
    if facts.attempts:
        _add_attempts(record, facts, to_unix_ns)
    return record


def _add_attempts(record: Record, facts: Facts, to_unix_ns: int) -> None:
    """The CLIENT span, and the attempts, which have spans of their own where there is more than one."""
    first = facts.attempts[0]
    record["client"] = {
        "span_id": facts.client_span_id,
        "start_ns": first.start_ns + to_unix_ns,
        "end_ns": record["end_ns"],
        "address": first.address,
        "port": first.port,
    }
    if facts.upstream_status:
        record["client"]["status"] = facts.upstream_status
    alone = len(facts.attempts) == 1
    asked = record["fields"].get(names.GEN_AI_REQUEST_MODEL)
    record["attempts"] = [_attempt(attempt, asked, to_unix_ns, alone=alone) for attempt in facts.attempts]


def _attempt(facts: AttemptFacts, asked: str | None, to_unix_ns: int, *, alone: bool) -> Attempt:
    """`asked`: the client's model, which a target gets that has none in its place."""
    attempt: Attempt = {
        "span_id": "" if alone else f"{random.getrandbits(64):016x}",
        "start_ns": facts.start_ns + to_unix_ns,
        "end_ns": facts.end_ns + to_unix_ns,
        "service": facts.service,
        "address": facts.address,
        "port": facts.port,
        "verdict": facts.verdict,
    }
    if facts.status:
        attempt["status"] = facts.status
    if facts.error is not None:
        attempt["error"] = facts.error
    model = facts.model or asked
    if model is not None:
        attempt["model"] = model
    return attempt


def _request_fields(facts: Facts) -> dict[str, Any]:
    method = facts.method
    known = method in names.HTTP_METHODS
    fields: dict[str, Any] = {
        names.HTTP_REQUEST_METHOD: method if known else "_OTHER",
        names.HTTP_RESPONSE_STATUS_CODE: facts.status,
        names.SLUICEWAY_REQUEST_ID: facts.request_id,
        names.SLUICEWAY_OUTCOME: facts.outcome,
        names.SLUICEWAY_GENERATION: facts.generation,
        names.SLUICEWAY_REQUEST_BYTES: facts.request_bytes,
        names.SLUICEWAY_RESPONSE_BYTES: facts.response_bytes,
    }
    if facts.route_fields is not None:
        fields.update(facts.route_fields)
        fields[names.SLUICEWAY_ATTEMPTS] = len(facts.attempts)
        fields[names.SLUICEWAY_FALLBACK] = facts.fallback
    for name, value in (
        (names.HTTP_REQUEST_METHOD_ORIGINAL, None if known or method is None else method[:METHOD_CHARACTERS_MAX]),
        (names.URL_PATH, facts.path),
        (names.CLIENT_ADDRESS, facts.client_address),
        (names.USER_AGENT_ORIGINAL, facts.user_agent),
        (names.NETWORK_PROTOCOL_VERSION, facts.protocol_version),
        (names.SLUICEWAY_CLIENT_REQUEST_ID, facts.client_request_id),
        (names.SLUICEWAY_CONSUMER, facts.consumer),
        (names.SLUICEWAY_SERVICE, facts.service or None),
        (names.ERROR_TYPE, facts.error_type),
        (names.SLUICEWAY_ERROR_ORIGIN, facts.error_origin),
        (names.SLUICEWAY_ERROR_MESSAGE, facts.error_message),
        (names.SLUICEWAY_TAPE_LOST, facts.tape_lost),
    ):
        if value is not None:
            fields[name] = value  # noqa: PERF403 - adds to what is there
    request_model = facts.request_model
    if request_model is not None:
        # Postgres, which is behind some collectors, takes no text with a NUL, nor the other spans that come with it
        request_model = request_model[:MODEL_CHARACTERS_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")
        fields[names.GEN_AI_REQUEST_MODEL] = request_model
    upstream_model = facts.upstream_model or request_model
    if upstream_model is not None:
        fields[names.SLUICEWAY_UPSTREAM_MODEL] = upstream_model
    if facts.request_stream or facts.stream:
        fields[names.GEN_AI_REQUEST_STREAM] = True
    return fields


def _add_findings(fields: dict[str, Any], facts: Facts, findings: Findings) -> None:
    known = vars(findings)
    for attribute, name in _USAGE_FIELDS:
        value = known.get(attribute)
        if value is not None:
            fields[name] = value
    if findings.finish_reasons:
        fields[names.GEN_AI_RESPONSE_FINISH_REASONS] = findings.finish_reasons
    if facts.stream:
        fields[names.SLUICEWAY_RESPONSE_EVENTS] = findings.events
        if facts.first_token_ns:
            fields[names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS] = _ms(facts.first_token_ns - facts.accepted_ns)
        if facts.first_event_ns and facts.attempts:
            waited_ns = facts.first_event_ns - facts.attempts[-1].start_ns
            fields[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = round(waited_ns / 1e9, 6)


def _usage_source(fields: dict[str, Any], facts: Facts, findings: Findings) -> str:
    """How far the usage can be trusted; a stream without any is estimated by its events that carried output."""
    if findings.usage_seen:
        # a plain answer with an error is whole; a stream with one was to have gone on, and so was its usage
        ended_well = facts.outcome == names.OUTCOME_OK or (
            facts.outcome == names.OUTCOME_UPSTREAM_ERROR and not facts.stream
        )
        whole = (findings.usage_final or ended_well) and not findings.failed
        return names.USAGE_UPSTREAM if whole else names.USAGE_PARTIAL
    if facts.stream and findings.output_events:
        fields[names.GEN_AI_USAGE_OUTPUT_TOKENS] = findings.output_events
        return names.USAGE_ESTIMATED
    return names.USAGE_NONE


def _add_cost(fields: dict[str, Any], price: Price) -> None:
    cost = cost_of(price, fields)
    if cost is not None:
        fields[names.GEN_AI_USAGE_COST] = cost
        fields[names.SLUICEWAY_USAGE_CURRENCY] = price.currency


def _add_times(fields: dict[str, Any], facts: Facts) -> None:
    duration_ns = facts.end_ns - facts.accepted_ns
    waits_ns = facts.upload_ns + facts.connect_ns + facts.upstream_ns + facts.client_blocked_ns
    fields[names.SLUICEWAY_DURATION_MS] = _ms(duration_ns)
    if facts.first_byte_ns:
        fields[names.SLUICEWAY_TIME_TO_FIRST_BYTE_MS] = _ms(facts.first_byte_ns - facts.accepted_ns)
    fields[names.SLUICEWAY_UPLOAD_MS] = _ms(facts.upload_ns)
    fields[names.SLUICEWAY_CONNECT_MS] = _ms(facts.connect_ns)
    fields[names.SLUICEWAY_UPSTREAM_MS] = _ms(facts.upstream_ns)
    fields[names.SLUICEWAY_CLIENT_BLOCKED_MS] = _ms(facts.client_blocked_ns)
    fields[names.SLUICEWAY_OVERHEAD_MS] = _ms(duration_ns - waits_ns)


def _ms(duration_ns: int) -> float:
    """Milliseconds to the microsecond; a division costs a third of `round`."""
    return duration_ns // 1000 / 1000
