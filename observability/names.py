"""Every span, metric and log name of the contract, once.

A constant is the contract's name in capitals, dots and hyphens as underscores. Log fields and span attributes share
their names, so one constant serves both; where a metric has the name of a field (`sluiceway.attempts`) it is one
constant too. The GenAI names are those of the semantic conventions v1.41, which today's backends read; `LATEST` has
those that later ones renamed, for who asks for them.

`on_server` and `on_client` say which span carries a field. Prometheus spellings are made by `prometheus_name`.
"""

# ruff: noqa: S105  (a token of a language model is no password)

from collections.abc import Mapping
from typing import Final

# --- the log line only -------------------------------------------------------------------------------------------
TIMESTAMP: Final = "timestamp"
LEVEL: Final = "level"
EVENT: Final = "event"
TRACE_ID: Final = "trace_id"
SPAN_ID: Final = "span_id"
EVENT_REQUEST: Final = "request"
"""The value of `event` in a request's line."""

# --- HTTP (stable conventions) -----------------------------------------------------------------------------------
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"
"""Where the method is none that the conventions know, and so _OTHER."""
HTTP_ROUTE: Final = "http.route"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
"""Attempt spans only: 1 for the second attempt."""
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
"""Of our own listener: what a proxy before it spoke is not known."""
CLIENT_ADDRESS: Final = "client.address"
USER_AGENT_ORIGINAL: Final = "user_agent.original"
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# --- GenAI -------------------------------------------------------------------------------------------------------
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_INPUT_MESSAGES_REF: Final = "gen_ai.input.messages_ref"
GEN_AI_OUTPUT_MESSAGES_REF: Final = "gen_ai.output.messages_ref"
GEN_AI_SYSTEM_INSTRUCTIONS_REF: Final = "gen_ai.system_instructions_ref"
"""Where the same is stored; what OpenTelemetry's own instrumentations write, and no convention has yet."""
GEN_AI_USAGE_COST: Final = "gen_ai.usage.cost"
"""No convention has it; it is what Langfuse and others read."""
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"
"""A metric label: input or output."""
GEN_AI_TOKEN_MODALITY: Final = "gen_ai.token.modality"
"""A label of the latest metrics."""

# --- Sluiceway ---------------------------------------------------------------------------------------------------
SLUICEWAY_REQUEST_ID: Final = "sluiceway.request_id"
SLUICEWAY_CLIENT_REQUEST_ID: Final = "sluiceway.client_request_id"
SLUICEWAY_UPSTREAM_REQUEST_ID: Final = "sluiceway.upstream_request_id"
SLUICEWAY_OUTCOME: Final = "sluiceway.outcome"
SLUICEWAY_ERROR_ORIGIN: Final = "sluiceway.error.origin"
SLUICEWAY_ERROR_MESSAGE: Final = "sluiceway.error.message"
SLUICEWAY_ERROR_BODY: Final = "sluiceway.error.body"
"""What the upstream said of an error: content, only where answers are recorded."""
SLUICEWAY_ERROR_BODY_REF: Final = "sluiceway.error.body_ref"
"""Where that is stored."""
SLUICEWAY_CONTENT_TRUNCATED: Final = "sluiceway.content.truncated"
SLUICEWAY_CONTENT_INPUT_BYTES: Final = "sluiceway.content.input_bytes"
SLUICEWAY_CONTENT_OUTPUT_BYTES: Final = "sluiceway.content.output_bytes"
"""Of the messages as they would have been, where they were cut."""
SLUICEWAY_CONTENT_DROPPED: Final = "sluiceway.content.dropped"
"""Why content that was to be recorded is missing; as a metric, how often."""
SLUICEWAY_TAPE_LOST: Final = "sluiceway.tape_lost"
SLUICEWAY_MODEL_API: Final = "sluiceway.model_api"
SLUICEWAY_RESOURCE_GROUP: Final = "sluiceway.resource_group"
SLUICEWAY_SCENARIO: Final = "sluiceway.scenario"
SLUICEWAY_PROTOCOL: Final = "sluiceway.protocol"
SLUICEWAY_OPERATION: Final = "sluiceway.operation"
SLUICEWAY_CONSUMER: Final = "sluiceway.consumer"
SLUICEWAY_SERVICE: Final = "sluiceway.service"
SLUICEWAY_UPSTREAM_MODEL: Final = "sluiceway.upstream_model"
SLUICEWAY_ATTEMPTS: Final = "sluiceway.attempts"
"""The number of attempts in a record; as a metric, attempts by verdict."""
SLUICEWAY_TRIED: Final = "sluiceway.tried"
SLUICEWAY_FALLBACK: Final = "sluiceway.fallback"
SLUICEWAY_GENERATION: Final = "sluiceway.generation"
SLUICEWAY_TASK_ID: Final = "sluiceway.task_id"
SLUICEWAY_REQUEST_BYTES: Final = "sluiceway.request.bytes"
SLUICEWAY_RESPONSE_BYTES: Final = "sluiceway.response.bytes"
SLUICEWAY_RESPONSE_EVENTS: Final = "sluiceway.response.events"
SLUICEWAY_DURATION_MS: Final = "sluiceway.duration_ms"
SLUICEWAY_TIME_TO_FIRST_BYTE_MS: Final = "sluiceway.time_to_first_byte_ms"
SLUICEWAY_TIME_TO_FIRST_TOKEN_MS: Final = "sluiceway.time_to_first_token_ms"
SLUICEWAY_UPLOAD_MS: Final = "sluiceway.upload_ms"
SLUICEWAY_CONNECT_MS: Final = "sluiceway.connect_ms"
SLUICEWAY_UPSTREAM_MS: Final = "sluiceway.upstream_ms"
SLUICEWAY_CLIENT_BLOCKED_MS: Final = "sluiceway.client_blocked_ms"
SLUICEWAY_OVERHEAD_MS: Final = "sluiceway.overhead_ms"
SLUICEWAY_USAGE_SOURCE: Final = "sluiceway.usage.source"
SLUICEWAY_USAGE_IMAGE_TOKENS: Final = "sluiceway.usage.image_tokens"
SLUICEWAY_USAGE_VIDEO_TOKENS: Final = "sluiceway.usage.video_tokens"
SLUICEWAY_USAGE_AUDIO_TOKENS: Final = "sluiceway.usage.audio_tokens"
SLUICEWAY_USAGE_IMAGES: Final = "sluiceway.usage.images"
SLUICEWAY_USAGE_CHARACTERS: Final = "sluiceway.usage.characters"
SLUICEWAY_USAGE_SECONDS: Final = "sluiceway.usage.seconds"
SLUICEWAY_USAGE_VIDEOS: Final = "sluiceway.usage.videos"
SLUICEWAY_USAGE_DOCUMENTS: Final = "sluiceway.usage.documents"
SLUICEWAY_USAGE_CURRENCY: Final = "sluiceway.usage.currency"
SLUICEWAY_USAGE_RAW_INPUT_TOKENS: Final = "sluiceway.usage.raw_input_tokens"
"""As the upstream counts them, where that is another number: Anthropic leaves out those of the cache."""
SLUICEWAY_IMAGE_WIDTH: Final = "sluiceway.image.width"
SLUICEWAY_IMAGE_HEIGHT: Final = "sluiceway.image.height"
SLUICEWAY_VERDICT: Final = "sluiceway.verdict"
"""Attempt spans only."""
SLUICEWAY_LABEL_PREFIX: Final = "sluiceway.label."
"""Before the name of a label of a Model API or consumer."""

HTTP_METHODS: Final = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
"""Those of RFC 9110 and RFC 5789: a client that makes up methods makes up no names of spans."""

# --- values ------------------------------------------------------------------------------------------------------
OUTCOME_OK: Final = "ok"
OUTCOME_REJECTED: Final = "rejected"
OUTCOME_UPSTREAM_ERROR: Final = "upstream_error"
OUTCOME_UPSTREAM_ABORTED: Final = "upstream_aborted"
OUTCOME_CLIENT_ABORTED: Final = "client_aborted"
OUTCOME_GATEWAY_ERROR: Final = "gateway_error"
OUTCOMES: Final = (
    OUTCOME_OK,
    OUTCOME_REJECTED,
    OUTCOME_UPSTREAM_ERROR,
    OUTCOME_UPSTREAM_ABORTED,
    OUTCOME_CLIENT_ABORTED,
    OUTCOME_GATEWAY_ERROR,
)
ORIGIN_CLIENT: Final = "client"
ORIGIN_GATEWAY: Final = "gateway"
ORIGIN_UPSTREAM: Final = "upstream"
USAGE_UPSTREAM: Final = "upstream"
USAGE_PARTIAL: Final = "partial"
USAGE_ESTIMATED: Final = "estimated"
USAGE_NONE: Final = "none"

# --- metrics -----------------------------------------------------------------------------------------------------
GEN_AI_CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
GEN_AI_SERVER_REQUEST_DURATION: Final = "gen_ai.server.request.duration"
GEN_AI_SERVER_TIME_TO_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"
GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"
GEN_AI_CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
GEN_AI_CLIENT_INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.cache_read.input_tokens"
GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.cache_write.input_tokens"
GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.reasoning.output_tokens"
GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS: Final = "gen_ai.client.inference.operation.input_tokens"
GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS: Final = "gen_ai.client.inference.operation.output_tokens"
SLUICEWAY_REQUESTS: Final = "sluiceway.requests"
SLUICEWAY_COST: Final = "sluiceway.cost"
SLUICEWAY_TOKENS: Final = "sluiceway.tokens"
SLUICEWAY_ERRORS: Final = "sluiceway.errors"
SLUICEWAY_IMAGES: Final = "sluiceway.images"
SLUICEWAY_OVERHEAD_DURATION: Final = "sluiceway.overhead.duration"
HTTP_SERVER_ACTIVE_REQUESTS: Final = "http.server.active_requests"
SLUICEWAY_CONFIG_GENERATION: Final = "sluiceway.config.generation"
SLUICEWAY_RECORDS_DROPPED: Final = "sluiceway.records.dropped"
SLUICEWAY_RECORDS_QUEUED: Final = "sluiceway.records.queued"
"""Bytes of records that wait in a worker for an observer."""
SLUICEWAY_SPANS_QUEUED: Final = "sluiceway.spans.queued"
"""Bytes of spans that wait in an observer for the collector."""
SLUICEWAY_LINES_QUEUED: Final = "sluiceway.lines.queued"
"""Bytes of lines that wait in an observer for whoever reads stdout."""
SLUICEWAY_SPANS_DROPPED: Final = "sluiceway.spans.dropped"
"""Spans whose record is in the log and the metrics all the same."""
SLUICEWAY_METRICS_EXPORT_FAILURES: Final = "sluiceway.metrics.export_failures"
"""Times that a collector did not take all the numbers of a host."""
SLUICEWAY_CONNECTIONS: Final = "sluiceway.connections"
SLUICEWAY_MODEL_API_INFO: Final = "sluiceway.model_api.info"
"""Always 1: what its labels say of a Model API, for queries that join it with the other metrics."""

# Buckets in seconds. The conventions' own end at 81.92 s and 10 s; answers of large models and images take longer, and
# a histogram is blind beyond its last bound.
DURATION_BUCKETS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    120.0,
)
TIME_TO_FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 30.0, 60.0, 120.0),
)
TIME_PER_OUTPUT_TOKEN_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    *(10.0, 30.0, 120.0),
)
OVERHEAD_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0),
    120.0,
)
"""The gateway's own time: usually well below a millisecond."""
TOKEN_BUCKETS: Final = (
    *(1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0),
    *(4194304.0, 16777216.0, 67108864.0),
)


CONTENT_REFS: Final = {
    GEN_AI_INPUT_MESSAGES: GEN_AI_INPUT_MESSAGES_REF,
    GEN_AI_SYSTEM_INSTRUCTIONS: GEN_AI_SYSTEM_INSTRUCTIONS_REF,
    GEN_AI_OUTPUT_MESSAGES: GEN_AI_OUTPUT_MESSAGES_REF,
    SLUICEWAY_ERROR_BODY: SLUICEWAY_ERROR_BODY_REF,
}
"""Of each field with content the one that says where it is stored, for who asks for that (`observer.uploads`)."""
CONTENT: Final = frozenset(CONTENT_REFS)
"""The fields that are shed first: what was said, not what happened."""

# --- the latest conventions --------------------------------------------------------------------------------------
LATEST_OPT_IN: Final = "gen_ai_latest_experimental"
"""In OTEL_SEMCONV_STABILITY_OPT_IN, a list with commas."""
LATEST: Final = {GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: "gen_ai.usage.cache_write.input_tokens"}
"""Fields that have another name there. The metrics that have one are `observer.metrics`' to choose."""
INFERENCE: Final = frozenset({"chat", "text_completion", "generate_content"})
"""The operations whose client metrics the latest conventions call inference."""


def wants_latest(environ: Mapping[str, str]) -> bool:
    """Does the environment ask for the latest GenAI conventions?"""
    wishes = environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return LATEST_OPT_IN in (wish.strip().lower() for wish in wishes)


# --- which span carries what -------------------------------------------------------------------------------------
_SERVER_PREFIXES: Final = ("http.", "url.", "sluiceway.")
_SERVER_NAMES: Final = frozenset({CLIENT_ADDRESS, USER_AGENT_ORIGINAL, NETWORK_PROTOCOL_VERSION, ERROR_TYPE})
_CLIENT_PREFIXES: Final = (
    "gen_ai.",
    "sluiceway.usage.",
    "sluiceway.image.",
    "sluiceway.content.",
    SLUICEWAY_ERROR_BODY,
)
_CLIENT_NAMES: Final = frozenset(
    {SLUICEWAY_SERVICE, SLUICEWAY_UPSTREAM_MODEL, SLUICEWAY_MODEL_API, SLUICEWAY_CONSUMER, ERROR_TYPE}
)


def on_server(name: str) -> bool:
    """Does a field belong on the SERVER span?"""
    return name in _SERVER_NAMES or (name.startswith(_SERVER_PREFIXES) and not name.startswith(_CLIENT_PREFIXES))


def on_client(name: str) -> bool:
    """Does a field belong on the CLIENT span?

    `error.type` only where the upstream failed, and the status code there is the upstream's: `observer.spans` sees
    to both.
    """
    return name in _CLIENT_NAMES or name.startswith(_CLIENT_PREFIXES)


def prometheus_name(name: str, unit: str = "") -> str:
    """The name of a metric as Prometheus spells it, without the `_total` that counters add by themselves."""
    spelled = name.replace(".", "_").replace("-", "_")
    return f"{spelled}_{unit}" if unit else spelled
