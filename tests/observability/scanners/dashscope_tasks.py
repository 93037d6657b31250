"""Tasks of the DashScope protocol, what submits them, and its speech over HTTP."""

from typing import Any

from tests.observability.scanners.dashscope_responses import dashscope_events, packet
from tests.observability.scanners.responses import Case, answer, stream

IMAGE_OPERATIONS = (
    *("text2image", "image2image", "out-painting", "virtual-model", "background-generation", "image-generation"),
)
SUBMITTING = (*IMAGE_OPERATIONS, "video-generation", "image2video")
TASK = {"upstream_request_id": "r-1", "task_id": "t-1", "complete": True}
TOLD = {"first_output": True, "output_events": 1}
USED = {"usage_seen": True, "usage_final": True}
DONE = {**TASK, **TOLD, **USED, "finish_reasons": ["SUCCEEDED"]}


def task(status: str, usage: object = None, **output: Any) -> dict[str, Any]:
    """An answer about a task."""
    document = {"request_id": "r-1", "output": {"task_id": "t-1", "task_status": status, **output}}
    return document if usage is None else {**document, "usage": usage}


def fetched(name: str, document: object, **facts: Any) -> Case:
    """A task that is looked at."""
    return answer("dashscope", "tasks", name, document, **facts)


RESULTS = [{"url": "u", "actual_prompt": "p"}, {"url": "v"}, {"code": "DataInspectionFailed", "message": "m"}]
METRICS = {"TOTAL": 3, "SUCCEEDED": 2, "FAILED": 1}
VIDEO_USAGE = {"duration": 10, "video_count": 1, "SR": 720, "size": "1280*720", "input_video_duration": 5}

TASKS = [
    *(answer("dashscope", operation, "submitted", task("PENDING"), **TASK) for operation in SUBMITTING),
    *(
        answer(
            "dashscope",
            operation,
            "answered at once",
            task("SUCCEEDED", {"image_count": 2}, results=RESULTS, task_metrics=METRICS),
            **DONE,
            images=2,
        )
        for operation in IMAGE_OPERATIONS
    ),
    *(
        fetched(
            status,
            task(
                status, {"image_count": 1, "total_tokens": 5}, results=RESULTS, video_url="u", result_url="u", text="x"
            ),
            **TASK,
        )
        for status in ("PENDING", "RUNNING", "SUSPENDED")
    ),
    fetched(
        "images",
        task("SUCCEEDED", {"image_count": 2, "width": 1024, "height": 768}, results=RESULTS, task_metrics=METRICS),
        **DONE,
        images=2,
        image_width=1024,
        image_height=768,
    ),
    fetched(
        "images listed, not counted",
        task("SUCCEEDED", results=[*RESULTS, {"url": "w", "code": "X"}]),
        **{**DONE, "usage_seen": False, "usage_final": False},
        images=2,
    ),
    fetched(
        "large answer",
        task("SUCCEEDED", {"image_count": 2}, results=[{"actual_prompt": "x" * 70_000, **one} for one in RESULTS]),
        **DONE,
        images=2,
    ),
    fetched(
        "one image",
        task("SUCCEEDED", {}, output_image_url="u"),
        **{**DONE, "usage_seen": False, "usage_final": False},
        images=1,
    ),
    fetched(
        "one image and a count",
        task("SUCCEEDED", result_url="u", task_metrics=METRICS),
        **{**DONE, "usage_seen": False, "usage_final": False},
        images=2,
    ),
    fetched(
        "images in choices",
        {
            **task(
                "SUCCEEDED",
                {"size": "1280*1280"},
                choices=packet([{"type": "image", "image": "u"}], "stop")["output"]["choices"],
            )
        },
        **{**DONE, "finish_reasons": ["stop"]},
        images=1,
        image_width=1280,
        image_height=1280,
    ),
    fetched("video", task("SUCCEEDED", VIDEO_USAGE, video_url="u"), **DONE, videos=1, seconds=10.0),
    fetched(
        "video of an older model",
        task("SUCCEEDED", {"video_duration": 5, "video_ratio": "standard"}, results={"video_url": "u"}),
        **DONE,
        videos=1,
        seconds=5.0,
    ),
    fetched(
        "large video answer",
        {"padding": "y" * 70_000, **task("SUCCEEDED", VIDEO_USAGE, results={"video_url": "u"})},
        **DONE,
        videos=1,
        seconds=10.0,
    ),
    fetched(
        "transcription of files",
        task("SUCCEEDED", {"duration": 9}, results=[{"transcription_url": "u"}], task_metrics=METRICS),
        **{**DONE, "first_output": False, "output_events": 0},
        seconds=9.0,
    ),
    fetched(
        "texts embedded",
        task("SUCCEEDED", {"total_tokens": 23}, url="u"),
        **{**DONE, "first_output": False, "output_events": 0},
        input_tokens=23,
    ),
    fetched(
        "failed",
        task("FAILED", code="InvalidParameter", message="m", task_metrics={"TOTAL": 1, "FAILED": 1}),
        **TASK,
        finish_reasons=["FAILED"],
        error_code="InvalidParameter",
    ),
    fetched(
        "failed, large",
        task("FAILED", code="InvalidParameter", message="m" * 70_000),
        **TASK,
        finish_reasons=["FAILED"],
        error_code="InvalidParameter",
    ),
    fetched("failed without a code", task("FAILED"), **TASK, finish_reasons=["FAILED"], error_code="FAILED"),
    *(fetched(status, task(status), **TASK, finish_reasons=[status]) for status in ("CANCELED", "UNKNOWN")),
    fetched("cancelled", {"request_id": "r-1"}, upstream_request_id="r-1", complete=True),
    fetched(
        "listed",
        {
            "request_id": "r-1",
            "total": 1,
            "data": [{"task_id": "t-1", "status": "FAILED", "code": "x", "message": "m"}],
        },
        upstream_request_id="r-1",
        complete=True,
    ),
    fetched("odd types", {"output": {"task_status": [], "results": 5, "code": 7, "task_metrics": 1}}, complete=True),
    stream(
        "dashscope",
        "image-generation",
        "stream",
        dashscope_events(
            packet([{"type": "text", "text": "a"}]),
            packet([{"type": "image", "image": "u"}]),
            {**packet([], "stop"), "usage": {"input_tokens": 18, "output_tokens": 3, "image_count": 1}},
        ),
        upstream_request_id="r-9",
        input_tokens=18,
        output_tokens=3,
        cache_read_tokens=2,
        **USED,
        images=1,
        finish_reasons=["stop"],
        first_output=True,
        output_events=2,
        complete=True,
        events=3,
    ),
    stream(
        "dashscope",
        "image-generation",
        "stream of a task",
        dashscope_events(task("RUNNING"), task("SUCCEEDED", {"image_count": 1}, results=[{"url": "u"}])),
        **DONE,
        images=1,
        events=2,
    ),
    stream(
        "dashscope",
        "image-generation",
        "stream of a task, cut",
        dashscope_events(task("RUNNING")),
        **{**TASK, "complete": False},
        events=1,
    ),
    stream(
        "dashscope",
        "image-generation",
        "stream, cut",
        dashscope_events(packet([{"type": "text", "text": "a"}])),
        upstream_request_id="r-9",
        input_tokens=18,
        output_tokens=1,
        cache_read_tokens=2,
        usage_seen=True,
        **TOLD,
        events=1,
    ),
]


def audio(kind: str | None, data: str = "QUJD", reason: str | None = None, characters: int = 0) -> dict[str, Any]:
    """One event of speech."""
    output: dict[str, Any] = {"audio": {"data": data, "id": "a-1"}}
    if kind is not None:
        output |= {"type": kind, "sentence": {"index": 0, "words": []}}
    if reason is not None:
        output["finish_reason"] = reason
    return {"request_id": "r-1", "output": output, "usage": {"characters": characters}}


SPOKEN = {"upstream_request_id": "r-1", "usage_seen": True, "first_output": True}

SPEECH = [
    answer(
        "dashscope",
        "speech-synthesizer",
        "answer",
        {
            "request_id": "r-1",
            "output": {"audio": {"url": "u", "data": "", "id": "a-1"}, "finish_reason": "stop"},
            "usage": {"characters": 15},
        },
        **SPOKEN,
        usage_final=True,
        output_events=1,
        characters=15,
        finish_reasons=["stop"],
        complete=True,
    ),
    stream(
        "dashscope",
        "speech-synthesizer",
        "stream",
        dashscope_events(
            audio("sentence-begin", ""),
            audio("sentence-synthesis", characters=4),
            audio("sentence-synthesis", "QUJD" * 30_000, characters=4),
            audio("sentence-end", "", characters=9),
            audio(None, "", "stop", 15),
        ),
        **SPOKEN,
        usage_final=True,
        output_events=2,
        characters=15,
        finish_reasons=["stop"],
        complete=True,
        events=5,
    ),
    stream(
        "dashscope",
        "speech-synthesizer",
        "stream, cut",
        dashscope_events(audio("sentence-synthesis", reason="null", characters=4)),
        **SPOKEN,
        output_events=1,
        characters=4,
        events=1,
    ),
    Case("bytes", "dashscope", "speech-synthesizer", b"RIFF", {"first_output": True, "complete": True}, "audio/wav"),
]

NATIVE_MEDIA = [*TASKS, *SPEECH]
