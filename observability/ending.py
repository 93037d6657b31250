"""How an exchange ended, and its record: the endings table of the contract, in one place.

Called once, in the middleware's `finally`. Pure: an observation in, a record out.
"""

from typing import Any, Final

from observability import names
from observability.findings import Findings
from observability.observation import Observation
from observability.record import Record

CLIENTS_FAULT: Final = frozenset((400, 404, 405, 409, 413, 415, 422))
"""Upstream statuses that blame what the client sent."""
CLIENT_LEFT_STATUS: Final = 499
"""Recorded where the client left before it got a status; nginx's number, and the field's."""

_NOTHING: Final = Findings()

_USAGE_FIELDS: Final = (
    ("input_tokens", names.GEN_AI_USAGE_INPUT_TOKENS),
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


def settle(observation: Observation, *, client_left: bool) -> None:
    """Decide outcome, error type and origin where nobody has yet.

    `client_left`: the connection was gone before the handler had finished.
    """
    if observation.outcome is not None:
        return
    findings = observation.scanner.findings if observation.scanner is not None else _NOTHING
    status = observation.upstream_status
    if findings.error_code is not None or status >= 400:
        origin = names.ORIGIN_CLIENT if status in CLIENTS_FAULT else names.ORIGIN_UPSTREAM
        observation.fail(findings.error_code or str(status), names.OUTCOME_UPSTREAM_ERROR, origin)
    elif client_left and not findings.complete:
        observation.outcome = names.OUTCOME_CLIENT_ABORTED
    else:
        observation.outcome = names.OUTCOME_OK


def record_of(observation: Observation, end_ns: int) -> Record:
    """The record of a settled observation. `end_ns` is monotonic, as the observation's own clocks are."""
    fields = _request_fields(observation)
    findings = observation.scanner.findings if observation.scanner is not None else _NOTHING
    if observation.scanner is not None:
        _add_findings(fields, observation, findings)
    if observation.fields is not None:
        fields[names.SLUICEWAY_USAGE_SOURCE] = _usage_source(fields, observation, findings)
    _add_times(fields, observation, end_ns)
    duration_ns = end_ns - observation.accepted_ns
    record: Record = {
        "fields": fields,
        "start_ns": observation.accepted_unix_ns,
        "end_ns": observation.accepted_unix_ns + duration_ns,
        "trace_id": observation.trace.trace_id,
        "span_id": observation.span_id,
        "sampled": observation.sampled,
        "tracing": observation.tracing,
        "logging": observation.logging,
        "metrics": observation.metrics,
    }
    if observation.trace.parent_span_id is not None:
        record["parent_span_id"] = observation.trace.parent_span_id
    if observation.trace.tracestate is not None:
        record["tracestate"] = observation.trace.tracestate
    if observation.labels:
        record["labels"] = observation.labels
    client = observation.client
    if client is not None:
        client["end_ns"] = record["end_ns"]
        if observation.upstream_status:
            client["status"] = observation.upstream_status
        record["client"] = client
    if observation.attempts:
        record["attempts"] = observation.attempts
    return record


def _request_fields(observation: Observation) -> dict[str, Any]:
    fields: dict[str, Any] = {
        names.HTTP_REQUEST_METHOD: observation.method or "_OTHER",
        names.HTTP_RESPONSE_STATUS_CODE: observation.status or CLIENT_LEFT_STATUS,
        names.SLUICEWAY_REQUEST_ID: observation.request_id,
        names.SLUICEWAY_OUTCOME: observation.outcome,
        names.SLUICEWAY_GENERATION: observation.generation,
        names.SLUICEWAY_REQUEST_BYTES: observation.request_bytes,
        names.SLUICEWAY_RESPONSE_BYTES: observation.response_bytes,
    }
    if observation.fields is not None:
        fields.update(observation.fields)
        fields[names.SLUICEWAY_ATTEMPTS] = len(observation.attempts)
        fields[names.SLUICEWAY_FALLBACK] = False
    for name, value in (
        (names.URL_PATH, observation.path),
        (names.CLIENT_ADDRESS, observation.client_address),
        (names.USER_AGENT_ORIGINAL, observation.user_agent),
        (names.NETWORK_PROTOCOL_VERSION, observation.protocol_version),
        (names.SLUICEWAY_CLIENT_REQUEST_ID, observation.client_request_id),
        (names.SLUICEWAY_CONSUMER, observation.consumer),
        (names.SLUICEWAY_SERVICE, observation.service or None),
        (names.ERROR_TYPE, observation.error_type),
        (names.SLUICEWAY_ERROR_ORIGIN, observation.error_origin),
    ):
        if value is not None:
            fields[name] = value  # noqa: PERF403 - adds to what is there
    scanner = observation.request_scanner
    if scanner is not None:
        if scanner.model is not None:
            fields[names.GEN_AI_REQUEST_MODEL] = scanner.model
            fields[names.SLUICEWAY_UPSTREAM_MODEL] = scanner.model
        if scanner.stream or observation.stream:
            fields[names.GEN_AI_REQUEST_STREAM] = True
    return fields


def _add_findings(fields: dict[str, Any], observation: Observation, findings: Findings) -> None:
    for attribute, name in _USAGE_FIELDS:
        value = getattr(findings, attribute)
        if value is not None:
            fields[name] = value
    if findings.finish_reasons:
        fields[names.GEN_AI_RESPONSE_FINISH_REASONS] = findings.finish_reasons
    if observation.stream:
        fields[names.SLUICEWAY_RESPONSE_EVENTS] = findings.events
        if observation.first_token_ns:
            fields[names.SLUICEWAY_TIME_TO_FIRST_TOKEN_MS] = _ms(observation.first_token_ns - observation.accepted_ns)
        if observation.first_event_ns and observation.attempt_ns:
            waited_ns = observation.first_event_ns - observation.attempt_ns
            fields[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = round(waited_ns / 1e9, 6)


def _usage_source(fields: dict[str, Any], observation: Observation, findings: Findings) -> str:
    """How far the usage can be trusted; a stream without any is estimated by its events that carried output."""
    if findings.usage_seen:
        ended_well = observation.outcome in (names.OUTCOME_OK, names.OUTCOME_UPSTREAM_ERROR)
        whole = (findings.usage_final or ended_well) and not findings.failed
        return names.USAGE_UPSTREAM if whole else names.USAGE_PARTIAL
    if observation.stream and findings.output_events:
        fields[names.GEN_AI_USAGE_OUTPUT_TOKENS] = findings.output_events
        return names.USAGE_ESTIMATED
    return names.USAGE_NONE


def _add_times(fields: dict[str, Any], observation: Observation, end_ns: int) -> None:
    duration_ns = end_ns - observation.accepted_ns
    waits_ns = observation.upload_ns + observation.connect_ns + observation.upstream_ns + observation.client_blocked_ns
    fields[names.SLUICEWAY_DURATION_MS] = _ms(duration_ns)
    if observation.first_byte_ns:
        fields[names.SLUICEWAY_TIME_TO_FIRST_BYTE_MS] = _ms(observation.first_byte_ns - observation.accepted_ns)
    fields[names.SLUICEWAY_UPLOAD_MS] = _ms(observation.upload_ns)
    fields[names.SLUICEWAY_CONNECT_MS] = _ms(observation.connect_ns)
    fields[names.SLUICEWAY_UPSTREAM_MS] = _ms(observation.upstream_ns)
    fields[names.SLUICEWAY_CLIENT_BLOCKED_MS] = _ms(observation.client_blocked_ns)
    fields[names.SLUICEWAY_OVERHEAD_MS] = _ms(duration_ns - waits_ns)


def _ms(duration_ns: int) -> float:
    """Milliseconds to the microsecond; a division costs a third of `round`."""
    return duration_ns // 1000 / 1000
