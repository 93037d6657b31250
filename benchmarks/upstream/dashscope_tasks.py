"""DashScope's own protocol: tasks that make images and films, and the pages on which they are fetched.

Submitting answers PENDING; so many fetches as ``task-steps`` says find the task unfinished (PENDING the first, RUNNING
those after it; RUNNING where there is one), the next finds its end with results and usage, as does every later one.
A task may be cancelled while it is PENDING. Who does not ask for a task is refused, but for models that also answer
at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from benchmarks.upstream.answers import JSON, Asked, Reply, request_id, tokens_of
from benchmarks.upstream.dashscope_media import choices_of, count_of, images, size_of
from benchmarks.upstream.errors import error
from benchmarks.upstream.fills import parts_of
from benchmarks.upstream.ledger import Usage

AT_ONCE = ("wan2.2-t2i", "wan2.5", "wan2.6", "wan2.7")
TIMES = {"submit_time": "2024-05-23 10:17:32.000", "scheduled_time": "2024-05-23 10:17:32.100"}
END_TIME = "2024-05-23 10:17:40.000"
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN")

Task = dict[str, Any]
# the output of a task that succeeded, its usage as it is said, and what a reader finds in both
Made = tuple[dict[str, Any], dict[str, Any], Usage]


def submit(made: Callable[[Asked], Made]) -> Callable[[Asked], Reply]:
    """The answer at the path of an operation that makes a task."""

    def answer(asked: Asked) -> Reply:
        name = request_id(hashlib.sha256(asked.path.encode() + asked.upload.digest).digest())
        if not asked.is_async:
            if made is picture_choices and asked.model.startswith(AT_ONCE):
                return images(asked)
            if not asked.model.startswith(AT_ONCE):
                text = "current user api does not support synchronous calls."
                return error("dashscope", 403, "AccessDenied", text, asked.upload.digest)
            output, said, usage = made(asked)
            output = {"task_id": name, "task_status": "SUCCEEDED", **output}
            usage.task_id = name
            return Reply(JSON, name, parts_of({"output": output, "usage": said, "request_id": name}), usage=usage)
        output, said, usage = made(asked)
        asked.store.put("tasks", name, {
            "task_id": name, "model": asked.model, "steps": asked.script.task_steps, "fetches": 0,
            "end": asked.script.task_end, "code": asked.script.error_code or "InvalidParameter",
            "output": output, "said": {} if asked.script.usage == "absent" else said, "usage": usage,
        })  # fmt: skip
        body = {"output": {"task_id": name, "task_status": "PENDING"}, "request_id": name}
        return Reply(JSON, name, parts_of(body), usage=Usage(task_id=name))

    return answer


def tasks(asked: Asked) -> Reply | None:
    """``/api/v1/tasks`` and all below it."""
    below = [unquote(step) for step in asked.path.split("/")[4:]]
    match asked.method, below:
        case "GET", []:
            return _list(asked)
        case "GET", [name]:
            return _fetch(asked, name)
        case "POST", [name, "cancel"]:
            return _cancel(asked, name)
        case _:
            return None


def _status(task: Task) -> str:
    if task["fetches"] > task["steps"]:
        return "SUCCEEDED" if task["end"] == "PARTLY" else str(task["end"])
    return "RUNNING" if task["fetches"] > min(1, max(0, task["steps"] - 1)) else "PENDING"


def _fetch(asked: Asked, name: str) -> Reply:
    task = asked.store.get("tasks", name)
    identity = request_id(asked.upload.digest)
    if task is None:
        body: dict[str, Any] = {"output": {"task_id": name, "task_status": "UNKNOWN"}, "request_id": identity}
        return Reply(JSON, identity, parts_of(body), usage=Usage(task_id=name))
    task["fetches"] += 1
    status = _status(task)
    output: dict[str, Any] = {"task_id": name, "task_status": status, **TIMES}
    body = {"output": output, "request_id": identity}
    usage = Usage(task_id=name)
    if status in FINISHED:
        output["end_time"] = END_TIME
    if status == "FAILED":
        output |= {"code": task["code"], "message": "The task failed"}
    elif status == "SUCCEEDED":
        output |= task["output"]
        usage = task["usage"]
        usage.task_id = name
        if task["said"]:
            body["usage"] = task["said"]
    return Reply(JSON, identity, parts_of(body), usage=usage)


def _cancel(asked: Asked, name: str) -> Reply:
    task = asked.store.get("tasks", name)
    if task is None or _status(task) != "PENDING":
        text = "Failed to cancel the task, please confirm if the task is in PENDING status."
        return error("dashscope", 400, "UnsupportedOperation", text, asked.upload.digest)
    task |= {"end": "CANCELED", "steps": -1}
    identity = request_id(asked.upload.digest)
    return Reply(JSON, identity, parts_of({"request_id": identity}))


def _list(asked: Asked) -> Reply:
    """The tasks that are known, oldest first; `page_no`, `page_size`, `task_id` and `status` choose."""
    query = asked.query
    size, page = int(query.get("page_size", 10)), int(query.get("page_no", 1))
    found = [{"task_id": task["task_id"], "status": _status(task), "model_name": task["model"], "region": "cn-beijing",
              "request_id": task["task_id"], "api_key_id": "1", "caller_uid": "1", "caller_parent_id": "1",
              "gmt_create": 1_716_430_652_000, "start_time": 1_716_430_652_100, "end_time": 1_716_430_660_000,
              "user_api_unique_key": "apikey:v1:inference"} for task in asked.store.all("tasks")]  # fmt: skip
    found = [task for task in found if query.get("task_id") in (None, task["task_id"])]
    found = [task for task in found if query.get("status") in (None, task["status"])]
    identity = request_id(asked.upload.digest)
    body = {"request_id": identity, "total": len(found), "total_page": -(-len(found) // size), "page_no": page,
            "page_size": size, "data": found[(page - 1) * size : page * size]}  # fmt: skip
    return Reply(JSON, identity, parts_of(body))


def pictures(asked: Asked) -> Made:
    """``text2image``, ``image2image`` and ``background-generation``: a list of results."""
    count = count_of(asked)
    failed = int(asked.script.task_end == "PARTLY")
    prompt = str(asked.object("input").get("prompt") or "")
    results = [{"orig_prompt": prompt, "actual_prompt": prompt, "url": url} for url in _urls(asked, count - failed)]
    lost = [{"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}] * failed
    metrics = {"TOTAL": count, "SUCCEEDED": count - failed, "FAILED": failed}
    usage = Usage(images=count - failed)
    return {"results": [*results, *lost], "task_metrics": metrics}, {"image_count": count - failed}, usage


def picture(key: str) -> Callable[[Asked], Made]:
    """``out-painting`` and ``virtual-model``: one result, under a key of its own."""

    def made(asked: Asked) -> Made:
        return {key: _urls(asked, 1)[0]}, {"image_count": 1}, Usage(images=1)

    return made


def picture_choices(asked: Asked) -> Made:
    """``image-generation``: choices, as of an image that is made at once, and the size."""
    count = count_of(asked)
    width, height = size_of(asked)
    usage = Usage(images=count)
    if asked.script.usage != "absent":
        usage = Usage(0, 0, images=count, image_width=width, image_height=height)
    said = {"image_count": count, "size": f"{width}*{height}", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    return {"choices": choices_of(_urls(asked, count)), "finished": True}, said, usage


def film(asked: Asked) -> Made:
    """``video-generation`` and ``image2video``; ``wanx`` models say their usage as they always did."""
    prompt = str(asked.object("input").get("prompt") or "")
    seconds = int(asked.object("parameters").get("duration") or 5)
    url = asked.result_url(request_id(asked.upload.digest), "mp4")
    output = {"video_url": url, "orig_prompt": prompt, "actual_prompt": prompt}
    usage = Usage(videos=1, seconds=float(seconds))
    if asked.script.usage == "absent":
        usage = Usage(videos=1)
    if asked.model.startswith("wanx"):
        return output, {"video_duration": seconds, "video_ratio": "standard", "video_count": 1}, usage
    said = {"duration": seconds, "input_video_duration": 0, "output_video_duration": seconds, "video_count": 1}
    return output, {**said, "SR": 720, "size": "1280*720"}, usage


def texts_of_a_file(asked: Asked) -> Made:
    """``text-embedding`` of a file: a task."""
    tokens = tokens_of(asked.upload.body_bytes)
    usage = Usage() if asked.script.usage == "absent" else Usage(tokens)
    return {"url": asked.result_url(request_id(asked.upload.digest), "wav")}, {"total_tokens": tokens}, usage


def _urls(asked: Asked, count: int) -> list[str]:
    name = request_id(asked.upload.digest)
    return [asked.result_url(f"{name}-{n}", "png") for n in range(count)]


SUBMITTED: dict[str, Callable[[Asked], Reply]] = {
    "aigc/text2image/image-synthesis": submit(pictures),
    "aigc/image2image/image-synthesis": submit(pictures),
    "aigc/image2image/out-painting": submit(picture("output_image_url")),
    "aigc/virtualmodel/generation": submit(picture("result_url")),
    "aigc/background-generation/generation": submit(pictures),
    "aigc/image-generation/generation": submit(picture_choices),
    "aigc/video-generation/video-synthesis": submit(film),
    "aigc/image2video/video-synthesis": submit(film),
}
"""Below ``/api/v1/services``."""
