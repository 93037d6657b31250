"""What DashScope answers to an image request, and what an OpenAI client is told of it (protocols.md §2.5-2.7, §3.3).

`read_answer` takes one whole document, of a call that answers at once, of a task as it was made or as it is fetched.
Images stand in the messages of choices, several in one too, or in a list of results of which some may have failed; an
error stands beside the output or, of a task, inside it, with HTTP 200. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from observability.scanners.base import code_of
from observability.scanners.usage import count_of
from proxy.errors import openai_type

MESSAGE_CHARACTERS_MAX: Final = 4096
"""Of an upstream's words in an answer of ours: they are a sentence or two."""
_CODE: Final = re.compile(r"[ -~]{1,128}")
_TASK_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,128}")
FAILED: Final = frozenset(("FAILED", "CANCELED", "UNKNOWN"))
"""Ends of a task without a result. UNKNOWN: expired, or somebody else's."""

_STATUSES: Final[tuple[tuple[re.Pattern[str], int], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), status)
    for pattern, status in (
        (r"Throttling|LimitRequests", 429),
        (r"Invalid(?!ApiKey)|BadRequest|UnsupportedOperation|Arrearage", 400),
        (r"DataInspection|IPInfringement|FaqRuleBlocked", 400),
        (r".*Time-?_?out", 504),
        (r"InvalidApiKey", 401),
        (r".*AccessDenied|AllocationQuota", 403),
        (r".*NotFound", 404),
        (r"ServiceUnavailable|ModelUnavailable|ModelServing", 503),
        (r"InternalError|SystemError", 500),
    )
)
"""Codes of errors that come with HTTP 200 → the status that says the same; the first that fits their beginning. Those
of others: 502, since something went wrong behind the gateway and nobody knows what."""


@dataclass(frozen=True, slots=True)
class Image:
    """One that was made."""

    url: str
    """Of http(s), or a data URL."""
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The upstream's no."""

    status: int
    """Of HTTP: the upstream's own, or what its code says."""
    code: str
    message: str

    @property
    def recorded(self) -> str:
        """The code, as far as it is one."""
        return code_of(self.code) or "error"


@dataclass(slots=True)
class Answer:
    """What one document says."""

    images: list[Image] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    task_id: str | None = None
    """One that can stand in a path."""
    task_status: str | None = None
    failure: Failure | None = None
    """All failed; where one image was made there is none."""


def read_answer(status: int, body: bytes) -> Answer:
    """What a whole answer says. A body that is no JSON object says nothing."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        document = {}
    answer = Answer(request_id=_text(document.get("request_id")))
    output, usage = document.get("output"), document.get("usage")
    if isinstance(usage, dict):
        answer.usage = usage
    item: dict[str, Any] | None = None
    if isinstance(output, dict):
        task_id = output.get("task_id")
        answer.task_id = task_id if isinstance(task_id, str) and _TASK_ID.fullmatch(task_id) else None
        answer.task_status = _text(output.get("task_status"))
        _read_choices(output.get("choices"), answer.images)
        item = _read_results(output.get("results"), answer.images)
    inner = output if isinstance(output, dict) and answer.task_status in FAILED else item
    if status >= 400 or document.get("code"):
        answer.failure = _failure(status, document)
    elif not answer.images and inner is not None:
        answer.failure = _failure(status, inner, answer.task_status)
    return answer


def _read_choices(choices: object, images: list[Image]) -> None:
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        revised = next((text for part in parts if (text := _text(part.get("text"), MESSAGE_CHARACTERS_MAX))), None)
        images += (Image(url, revised) for part in parts if (url := _url(part.get("image"))))


def _read_results(results: object, images: list[Image]) -> dict[str, Any] | None:
    """Fill in what was made; answers the first that failed."""
    failed = None
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, dict):
            continue
        url = _url(result.get("url"))
        if url and not result.get("code"):
            images.append(Image(url, _text(result.get("actual_prompt"), MESSAGE_CHARACTERS_MAX)))
        elif failed is None:
            failed = result
    return failed


def _failure(status: int, said: dict[str, Any], otherwise: str | None = None) -> Failure:
    code, message = said.get("code"), said.get("message")
    error = said.get("error")
    if not code and isinstance(error, dict):  # of a proxy in between that speaks OpenAI's
        code, message = error.get("code") or error.get("type"), error.get("message")
    shown = code if isinstance(code, str) and _CODE.fullmatch(code) else otherwise or str(status)
    if status < 400:
        status = next((mapped for pattern, mapped in _STATUSES if pattern.match(shown)), 502)
    text = message if isinstance(message, str) and message else "the upstream gave no reason"
    return Failure(status, shown, text[:MESSAGE_CHARACTERS_MAX])


def _text(value: object, characters_max: int = 256) -> str | None:
    return value[:characters_max] if isinstance(value, str) and value else None


def _url(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


# -- what the client is told -----------------------------------------------------------------------------------------


def failure_body(failure: Failure, request_id: str | None) -> bytes:
    """The upstream's no in the shape of the OpenAI protocol, with its own code and words."""
    error = {"message": failure.message, "type": openai_type(failure.status), "param": None, "code": failure.code}
    document: dict[str, Any] = {"error": error}
    if request_id is not None:
        document["request_id"] = request_id  # as DashScope's own compatible mode has it
    return orjson.dumps(document)


def tokens_of(usage: dict[str, Any]) -> dict[str, Any] | None:
    """OpenAI's `usage`, where the upstream counts in tokens too; else None: it is optional, and zeros would lie."""
    given, made = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if given is None or made is None or not given + made:
        return None
    details = usage.get("input_tokens_details")
    inputs = details if isinstance(details, dict) else {}
    images = count_of(inputs.get("image_tokens")) or 0
    texts = count_of(inputs.get("text_tokens"))
    return {
        "input_tokens": given,
        "input_tokens_details": {"image_tokens": images, "text_tokens": given - images if texts is None else texts},
        "output_tokens": made,
        "total_tokens": given + made,
    }


def pieces_of(answer: Answer, created: int, *, inline: bool) -> list[bytes]:
    """An `ImagesResponse`, cut where an image belongs.

    `inline`: between the pieces belongs, for each image, its base64; else there is one piece. Data URLs are the base64
    already and stand in the pieces, see `inlined`.
    """
    out: list[bytes] = []
    text = b'{"created":%d,"data":[' % created
    for number, image in enumerate(answer.images):
        text += b"," if number else b""
        revised = b"" if image.revised_prompt is None else b',"revised_prompt":' + orjson.dumps(image.revised_prompt)
        encoded = inlined(image)
        if encoded is not None:
            text += b'{"b64_json":' + orjson.dumps(encoded) + revised + b"}"
        elif inline:
            out.append(text + b'{"b64_json":"')
            text = b'"' + revised + b"}"
        else:
            text += b'{"url":' + orjson.dumps(image.url) + revised + b"}"
    usage = tokens_of(answer.usage)
    text += b"]" + (b"" if usage is None else b',"usage":' + orjson.dumps(usage)) + b"}"
    return [*out, text]


def events_of(answer: Answer, created: int, kind: str) -> list[bytes]:
    """The same as server-sent events of a `kind` (`image_edit.completed`), one for each image; always `inline`."""
    out: list[bytes] = []
    text = b""
    width, height = count_of(answer.usage.get("width")), count_of(answer.usage.get("height"))
    size = f"{width}x{height}" if width and height else "auto"
    for number, image in enumerate(answer.images, 1):
        document: dict[str, Any] = {"type": kind, "created_at": created, "size": size, "quality": "auto"}
        document |= {"background": "auto", "output_format": "png"}
        if image.revised_prompt is not None:
            document["revised_prompt"] = image.revised_prompt
        usage = tokens_of(answer.usage) if number == len(answer.images) else None
        if usage is not None:
            document["usage"] = usage
        text += b"event: %b\ndata: %b" % (kind.encode("ascii"), orjson.dumps(document)[:-1]) + b',"b64_json":'
        encoded = inlined(image)
        if encoded is None:
            out.append(text + b'"')
            text = b'"}\n\n'
        else:
            text += orjson.dumps(encoded) + b"}\n\n"
    return [*out, text]


def event_of_error(body: bytes) -> bytes:
    """An error in a stream that has begun, as the OpenAI protocol has it: SDKs raise it."""
    return b"data: %b\n\n" % body


def inlined(image: Image) -> str | None:
    """The base64 of an image whose URL holds it; None for a URL that leads to it."""
    head, comma, data = image.url.partition(",")
    return data if comma and head.startswith("data:") and head.endswith(";base64") else None


def to_fetch(images: Sequence[Image]) -> list[str]:
    """The URLs of those that are elsewhere, in their order."""
    return [image.url for image in images if inlined(image) is None]
