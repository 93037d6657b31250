"""The OpenAI protocol's resources: models, files, uploads, batches and fine-tuning jobs, with all five methods.

What is made is kept (`store`) and can be looked at, changed and deleted; models are there by any name. A batch has
ended when it is looked at, and says its usage then. PUT and PATCH, which the protocol does not have, answer with the
resource.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from benchmarks.upstream.answers import CREATED, JSON, Asked, Reply, identity
from benchmarks.upstream.errors import error
from benchmarks.upstream.fills import Fill, parts_of
from benchmarks.upstream.ledger import Usage
from benchmarks.upstream.store import HELD_BYTES

MODELS = ("qwen-plus", "qwen-max", "qwen3-vl-plus", "qwen-image", "text-embedding-v4")
BATCH_USAGE = Usage(120, 80, 20, reasoning_tokens=5)
CHANGING = ("POST", "PUT", "PATCH")

Thing = dict[str, Any]


def resources(asked: Asked) -> Reply:
    """Everything below the five paths."""
    _, _, kind, *below = asked.path.split("/")
    answer = _ANSWERS.get(kind)
    usage = None
    found = None
    if answer is not None and len(below) <= _DEEPEST:
        found = answer(asked, [unquote(step) for step in below])
    if isinstance(found, Reply):
        return found
    if found is None:
        return error("openai", 404, "not_found", f"There is nothing at {asked.path}", asked.upload.digest)
    if found.get("object") == "batch" and found.get("status") == "completed":
        usage = BATCH_USAGE
    return Reply(JSON, _name_of(asked), parts_of(found), usage=usage)


_DEEPEST = 4  # /v1/fine_tuning/checkpoints/{checkpoint}/permissions/{permission}


def _name_of(asked: Asked) -> str:
    """Of requests without a body the path makes the difference."""
    return identity(hashlib.sha256(asked.upload.digest + asked.path.encode()).digest())


def _list(things: list[Thing]) -> Thing:
    ends = {"first_id": things[0]["id"], "last_id": things[-1]["id"]} if things else {"first_id": None, "last_id": None}
    return {"object": "list", "data": things, **ends, "has_more": False}


def _models(asked: Asked, below: list[str]) -> Thing | None:
    if not below:
        return {"object": "list", "data": [_model(name) for name in MODELS]} if asked.method != "DELETE" else None
    name = "/".join(below)
    return _deleted(name, "model") if asked.method == "DELETE" else _model(name)


def _model(name: str) -> Thing:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "system"}


def _deleted(name: str, kind: str) -> Thing:
    return {"id": name, "object": kind, "deleted": True}


def _kept(asked: Asked, kind: str, thing: Thing) -> Thing:
    asked.store.put(kind, thing["id"], thing)
    return thing


def _looked_at(asked: Asked, kind: str, below: list[str], make: Callable[[Asked], Thing]) -> Thing | None:
    """A collection, or one of its things: what all kinds have in common."""
    if not below:
        if asked.method == "GET":
            return _list([_shown(thing) for thing in asked.store.all(kind)])
        return _kept(asked, kind, make(asked)) if asked.method in CHANGING else None
    thing = asked.store.get(kind, below[0])
    if thing is None or len(below) > 1:
        return None
    if asked.method == "DELETE":
        asked.store.drop(kind, below[0])
        return _deleted(below[0], thing["object"])
    return _shown(thing)


def _shown(thing: Thing) -> Thing:
    """Without what is kept of a file."""
    return {key: value for key, value in thing.items() if key != "head"}


def _files(asked: Asked, below: list[str]) -> Thing | Reply | None:
    if below[1:] == ["content"] and (file := asked.store.get("files", below[0])) is not None:
        whole = file["bytes"] <= HELD_BYTES
        content = file["head"] if whole else Fill("text", 0, file["bytes"])  # too long: as many bytes, not the same
        return Reply("application/octet-stream", _name_of(asked), [content])
    found = _looked_at(asked, "files", below, _file)
    return _shown(found) if found is not None else None


def _file(asked: Asked) -> Thing:
    if not asked.upload.files:
        raise ValueError("The form has no file")
    file, head = asked.upload.files[0], asked.upload.heads[0] if asked.upload.heads else b""
    named = {"filename": file.filename, "purpose": asked.document.get("purpose"), "status": "processed"}
    return {"id": "file-" + asked.name[:24], "object": "file", "bytes": file.bytes, "created_at": CREATED, **named,
            "head": head}  # fmt: skip


def _uploads(asked: Asked, below: list[str]) -> Thing | None:
    if len(below) < 2:
        return _looked_at(asked, "uploads", below, _upload)
    upload = asked.store.get("uploads", below[0])
    if upload is None:
        return None
    match below[1]:
        case "parts":
            part = {"id": "part_" + asked.name[:24], "object": "upload.part"}
            return {**part, "created_at": CREATED, "upload_id": below[0]}
        case "complete":
            named = {"filename": upload["filename"], "purpose": upload["purpose"], "status": "processed"}
            file = {"id": "file-" + asked.name[:24], "object": "file", "bytes": upload["bytes"], **named}
            upload |= {"status": "completed", "file": {**file, "created_at": CREATED}}
            return upload
        case "cancel":
            upload["status"] = "cancelled"
            return upload
        case _:
            return None


def _upload(asked: Asked) -> Thing:
    named = {key: asked.document.get(key) for key in ("filename", "purpose", "bytes")}
    times = {"created_at": CREATED, "expires_at": CREATED + 3600}
    return {"id": "upload_" + asked.name[:24], "object": "upload", **named, **times, "status": "pending"}


def _batches(asked: Asked, below: list[str]) -> Thing | None:
    batch = asked.store.get("batches", below[0]) if below else None
    if batch is not None and below[1:] == ["cancel"]:
        batch["status"] = "cancelling"
        return batch
    if batch is not None and not below[1:] and asked.method == "GET" and batch["status"] == "validating":
        output, cached = BATCH_USAGE.output_tokens, BATCH_USAGE.cache_read_tokens
        details = {"input_tokens_details": {"cached_tokens": cached}, "output_tokens_details": {"reasoning_tokens": 5}}
        usage = {"input_tokens": BATCH_USAGE.input_tokens, "output_tokens": output, "total_tokens": 200, **details}
        batch |= {"status": "completed", "output_file_id": "file-output", "completed_at": CREATED + 60}
        batch |= {"request_counts": {"total": 2, "completed": 2, "failed": 0}, "usage": usage}
    return _looked_at(asked, "batches", below, _batch)


def _batch(asked: Asked) -> Thing:
    named = {key: asked.document.get(key) for key in ("endpoint", "input_file_id", "completion_window", "metadata")}
    counts = {"total": 0, "completed": 0, "failed": 0}
    return {"id": "batch_" + asked.name[:24], "object": "batch", **named, "errors": None, "status": "validating",
            "created_at": CREATED, "output_file_id": None, "request_counts": counts}  # fmt: skip


def _fine_tuning(asked: Asked, below: list[str]) -> Thing | None:
    if below[:1] == ["checkpoints"] and below[2:3] == ["permissions"]:
        if asked.method == "DELETE":
            return _deleted(below[3], "checkpoint.permission") if below[3:] else None
        permission = {"object": "checkpoint.permission", "id": "cp_" + asked.name[:24], "created_at": CREATED}
        return _list([{**permission, "project_id": "proj_1"}])
    if below[:1] != ["jobs"]:
        return None
    job = asked.store.get("jobs", below[1]) if below[1:] else None
    verb = below[2:]
    if job is None or not verb:
        return _looked_at(asked, "jobs", below[1:], _job)
    match verb[0]:
        case "events":
            event = {"object": "fine_tuning.job.event", "id": "ftevent-1", "created_at": CREATED, "level": "info"}
            return _list([{**event, "message": "The job was created", "type": "message", "data": {}}])
        case "checkpoints":
            return _list([])
        case "cancel" | "pause" | "resume" as done:
            job["status"] = {"cancel": "cancelled", "pause": "paused", "resume": "running"}[done]
            return job
        case _:
            return None


def _job(asked: Asked) -> Thing:
    nothing = ("error", "fine_tuned_model", "finished_at", "trained_tokens", "validation_file", "estimated_finish")
    named = {"model": asked.model, "training_file": asked.document.get("training_file"), "status": "validating_files"}
    own = {"organization_id": "org-1", "result_files": [], "seed": 0, "hyperparameters": {"n_epochs": "auto"}}
    return {"id": "ftjob-" + asked.name[:24], "object": "fine_tuning.job", "created_at": CREATED, **named, **own,
            **dict.fromkeys(nothing)}  # fmt: skip


_ANSWERS: dict[str, Callable[[Asked, list[str]], Thing | Reply | None]] = {
    "models": _models,
    "files": _files,
    "uploads": _uploads,
    "batches": _batches,
    "fine_tuning": _fine_tuning,
}
