"""Models, files, uploads, batches and fine-tuning jobs of the OpenAI protocol."""

from typing import Any

from tests.observability.scanners.responses import Case, events, plain, stream

READ = {"first_output": True, "output_events": 1, "complete": True}
BATCH_USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 42,
}


def batch(status: str) -> dict[str, Any]:
    """A batch."""
    return {
        "id": "batch_1",
        "object": "batch",
        "model": "gpt-x",
        "status": status,
        "errors": None,
        "usage": BATCH_USAGE,
    }


def job(status: str, error: object) -> dict[str, Any]:
    """A fine-tuning job."""
    return {"id": "ftjob-1", "object": "fine_tuning.job", "model": "gpt-x", "status": status, "error": error}


FILE = {"id": "file-1", "object": "file", "bytes": 5, "filename": "a.jsonl", "purpose": "batch", "status": "error"}
LINE = {"id": "batch_req_1", "custom_id": "a", "response": None, "error": {"code": "x", "message": "m"}}
EVENT = {"object": "fine_tuning.job.event", "id": "ftevent-1", "level": "info", "message": "m"}

RESOURCES = [
    plain("list", "models", {"object": "list", "data": [{"id": "gpt-x", "object": "model"}]}, **READ),
    plain(
        "large list",
        "models",
        {"object": "list", "data": [{"id": f"{n}", "object": "model", "padding": "y" * 100} for n in range(1000)]},
        **READ,
    ),
    plain("one", "models", {"id": "gpt-x", "object": "model"}, **READ, response_id="gpt-x", response_model="gpt-x"),
    plain(
        "deleted",
        "models",
        {"id": "m", "object": "model", "deleted": True},
        **READ,
        response_id="m",
        response_model="m",
    ),
    plain("file", "files", FILE, **READ, response_id="file-1"),
    plain("a line that failed", "files", LINE, **READ, response_id="batch_req_1"),
    Case("content", "openai", "files", b"\0\1", {"first_output": True, "complete": True}, "application/octet-stream"),
    plain("upload", "uploads", {"id": "upload_1", "object": "upload", "file": FILE}, **READ, response_id="upload_1"),
    *(
        plain(status, "batches", batch(status), **READ, response_id="batch_1", response_model="gpt-x")
        for status in ("validating", "in_progress", "finalizing", "cancelling")
    ),
    *(
        plain(
            status,
            "batches",
            batch(status),
            **READ,
            response_id="batch_1",
            response_model="gpt-x",
            input_tokens=30,
            output_tokens=12,
            cache_read_tokens=4,
            reasoning_tokens=2,
            usage_seen=True,
            usage_final=True,
        )
        for status in ("completed", "failed", "expired", "cancelled")
    ),
    *(
        plain("job", "fine_tuning", job(status, error), **READ, response_id="ftjob-1", response_model="gpt-x")
        for status, error in (("running", None), ("failed", {"code": "invalid_training_file", "message": "m"}))
    ),
    plain("events", "fine_tuning", {"object": "list", "data": [EVENT], "has_more": False}, **READ),
    stream(
        "openai",
        "fine_tuning",
        "events as they come",
        events(EVENT, EVENT),
        **{**READ, "output_events": 2},
        response_id="ftevent-1",
        events=2,
    ),
    plain("odd types", "batches", {"object": [], "id": 5, "status": []}, **READ),
]
