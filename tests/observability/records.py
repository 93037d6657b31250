"""Records for tests, as a worker makes them."""

from typing import Any

from observability import names
from observability.record import Record

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
CLIENT_SPAN_ID = "0aa902b700f067ab"
START_NS = 1_700_000_000_000_000_000


def record(fields: dict[str, Any] | None = None, **overrides: Any) -> Record:
    """A plain chat request that went well; `fields` and other keys replace, None removes."""
    made: dict[str, Any] = {
        "fields": {
            names.HTTP_REQUEST_METHOD: "POST",
            names.HTTP_ROUTE: "/v1/chat/completions",
            names.URL_PATH: "/v1/chat/completions",
            names.HTTP_RESPONSE_STATUS_CODE: 200,
            names.CLIENT_ADDRESS: "127.0.0.1",
            names.USER_AGENT_ORIGINAL: "OpenAI/Python",
            names.NETWORK_PROTOCOL_VERSION: "1.1",
            names.GEN_AI_OPERATION_NAME: "chat",
            names.GEN_AI_PROVIDER_NAME: "dashscope",
            names.GEN_AI_REQUEST_MODEL: "qwen-plus",
            names.GEN_AI_RESPONSE_MODEL: "qwen-plus-latest",
            names.GEN_AI_RESPONSE_FINISH_REASONS: ["stop"],
            names.GEN_AI_USAGE_INPUT_TOKENS: 1000,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: 101,
            names.SLUICEWAY_USAGE_SOURCE: "upstream",
            names.SLUICEWAY_REQUEST_ID: "0" * 32,
            names.SLUICEWAY_OUTCOME: "ok",
            names.SLUICEWAY_MODEL_API: "chat",
            names.SLUICEWAY_CONSUMER: "search-team",
            names.SLUICEWAY_SERVICE: "qwen",
            names.SLUICEWAY_ATTEMPTS: 1,
            names.SLUICEWAY_FALLBACK: False,
            names.SLUICEWAY_DURATION_MS: 2500.25,
            names.SLUICEWAY_OVERHEAD_MS: 0.7,
        },
        "start_ns": START_NS,
        "end_ns": START_NS + 2_500_250_000,
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
        "sampled": True,
        "tracing": True,
        "logging": True,
        "metrics": True,
        "client": {
            "span_id": CLIENT_SPAN_ID,
            "start_ns": START_NS + 500_000,
            "end_ns": START_NS + 2_500_000_000,
            "address": "upstream.test",
            "port": 443,
            "status": 200,
        },
        "attempts": [
            {
                "span_id": "",
                "start_ns": START_NS + 500_000,
                "end_ns": START_NS + 2_500_000_000,
                "service": "qwen",
                "address": "upstream.test",
                "port": 443,
                "status": 200,
                "verdict": "done",
            }
        ],
    }
    for target, changes in ((made["fields"], fields or {}), (made, overrides)):
        for key, value in changes.items():
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
    return made  # type: ignore[return-value]
