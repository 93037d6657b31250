"""The DashScope protocol: images and videos, which are made by tasks, and the tasks (protocols.md §1.2, §2.5, §2.6).

A task is submitted to the operation (`task_id`, no usage yet), then fetched until it is finished: that answer has the
results and the usage, as has every later one. Some models answer at once or with a stream, in the same shapes or with
choices. A task that failed says so with status 200, `code` and `message` inside the output; one whose results failed
only in part succeeded.
"""

from typing import Any, ClassVar

from observability.scanners.base import Reader, code_of, text_of
from observability.scanners.dashscope import GenerationReader
from observability.scanners.usage import count_of, read_total
from observability.wire.json_paths import Path, Paths

_FINISHED = frozenset(("SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN"))
"""UNKNOWN: expired, or somebody else's."""
_IMAGE_KEYS = ("output_image_url", "result_url")  # of operations that make one: out-painting, virtual-model
_METRICS = ("task_metrics", "task_metric")
_OUTPUT: list[Path] = [
    ("task_id",),
    ("task_status",),
    ("code",),
    ("message",),
    ("video_url",),
    ("results", "video_url"),
    ("results", "*", "url"),
    ("results", "*", "code"),
    *((key,) for key in _IMAGE_KEYS),
    *((key, "SUCCEEDED") for key in _METRICS),
]
TASK: list[Path] = [("output", *path) for path in _OUTPUT]
"""Wanted of every answer about a task, beside the envelope."""


class TaskReader(GenerationReader):
    """All of them. The status of a finished task is its finish reason, where no choice has one."""

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*GenerationReader.paths.paths, *TASK])

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """One event of a stream."""
        super().event(name, _finished(document))

    def _is_over(self, output: object) -> bool:
        if super()._is_over(output):
            return True
        return isinstance(output, dict) and text_of(output.get("task_status")) in _FINISHED

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        super().body(_finished(document))

    def _read(self, document: dict[str, Any]) -> None:
        super()._read(document)
        findings = self.findings
        read_total(findings, document.get("usage"))  # of texts
        output = document.get("output")
        if not isinstance(output, dict):
            return
        findings.task_id = text_of(output.get("task_id")) or findings.task_id
        status = text_of(output.get("task_status"))
        if status is not None and not findings.finish_reasons:
            findings.finish_reasons = [status]
        if status == "FAILED" and findings.error_code is None:
            findings.error_code = code_of(output.get("code")) or status
        if findings.videos is None and _has_video(output):
            findings.videos = 1

    def _has_output(self, output: dict[str, Any]) -> bool:
        return super()._has_output(output) or _has_video(output) or self._images_in(output) > 0

    def _images_in(self, output: dict[str, Any]) -> int:
        """As listed, those that failed left out; else as counted."""
        if images := super()._images_in(output):
            return images
        results = output.get("results")
        if isinstance(results, list):
            return sum(isinstance(one, dict) and bool(one.get("url")) and not one.get("code") for one in results)
        if not any(output.get(key) for key in _IMAGE_KEYS):
            return 0
        counts = (metrics.get("SUCCEEDED") for key in _METRICS if isinstance(metrics := output.get(key), dict))
        return next((made for count in counts if (made := count_of(count))), 1)


def _finished(document: dict[str, Any]) -> dict[str, Any]:
    """The answer, of a task that goes on its name alone: what it has so far the finished one has once more."""
    output = document.get("output")
    if not isinstance(output, dict):
        return document
    status = text_of(output.get("task_status"))
    if status is None or status in _FINISHED:
        return document
    return {**document, "usage": None, "output": {"task_id": output.get("task_id")}}


def _has_video(output: dict[str, Any]) -> bool:
    results = output.get("results")
    return bool(output.get("video_url") or (isinstance(results, dict) and results.get("video_url")))


READERS: dict[tuple[str, str], type[Reader]] = {
    ("dashscope", operation): TaskReader
    for operation in (
        *("text2image", "image2image", "out-painting", "virtual-model", "background-generation", "image-generation"),
        *("video-generation", "image2video", "tasks"),
    )
}
"""By protocol and operation."""
