"""What DashScope answers, and what OpenAI's clients are told."""

from typing import Any

import orjson
import pytest

from proxy.translate.answers import Answer, Failure, Image, failure_body, pieces_of, read_answer
from tests.fakes.dashscope_images import REQUEST_ID, images_answer, refusal, task_answer

URL = "https://dashscope-result.example.com/a.png?Expires=1&Signature=x%2By"


def answer_of(said: tuple[int, dict[str, Any]]) -> Answer:
    return read_answer(said[0], orjson.dumps(said[1]))


def told(answer: Answer, *, inline: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(b"".join(pieces_of(answer, 7, inline=inline)))
    return document


def choices(*contents: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    return 200, {"output": {"choices": [{"message": {"content": content}} for content in contents]}}


IMAGES: list[tuple[tuple[int, dict[str, Any]], list[dict[str, Any]]]] = [
    (images_answer(URL), [{"url": URL}]),
    (images_answer("u1", "u2"), [{"url": "u1"}, {"url": "u2"}]),  # several in one choice
    (choices([{"image": "u1"}], [{"image": "u2"}]), [{"url": "u1"}, {"url": "u2"}]),
    (choices([{"text": "rewritten"}, {"type": "image", "image": "u"}]), [{"url": "u", "revised_prompt": "rewritten"}]),
    (choices([{"text": ""}, {"image": "u"}, {"image": None}, {}]), [{"url": "u"}]),
    (task_answer("t", "SUCCEEDED", {"url": "u", "orig_prompt": "o", "actual_prompt": "a"}),
     [{"url": "u", "revised_prompt": "a"}]),
    (task_answer("t", "SUCCEEDED", {"code": "DataInspectionFailed", "message": "m"}, {"url": "u"}), [{"url": "u"}]),
    (images_answer("data:image/png;base64,AAAA"), [{"b64_json": "AAAA"}]),
]  # fmt: skip


@pytest.mark.parametrize(("said", "data"), IMAGES)
def test_images(said: tuple[int, dict[str, Any]], data: list[dict[str, Any]]) -> None:
    answer = answer_of(said)
    assert answer.failure is None
    assert told(answer) == {"created": 7, "data": data}


def test_between_the_pieces_belong_the_images() -> None:
    answer = answer_of(
        choices([{"text": "t"}, {"image": "u1"}, {"image": "data:image/png;base64,AAAA"}, {"image": "u2"}])
    )
    first, second, last = pieces_of(answer, 7, inline=True)
    document = orjson.loads(first + b"ONE" + second + b"TWO" + last)
    assert [one["b64_json"] for one in document["data"]] == ["ONE", "AAAA", "TWO"]
    assert [one["revised_prompt"] for one in document["data"]] == ["t"] * 3


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"image_count": 1, "width": 1024, "height": 1024}, None),
        ({"input_tokens": 0, "output_tokens": 0, "image_count": 1}, None),
        (
            {"input_tokens": 20, "output_tokens": 30, "input_tokens_details": {"image_tokens": 5}},
            {
                "input_tokens": 20,
                "output_tokens": 30,
                "total_tokens": 50,
                "input_tokens_details": {"image_tokens": 5, "text_tokens": 15},
            },
        ),
    ],
)
def test_usage_in_tokens_or_none(usage: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert told(answer_of(images_answer("u", **usage))).get("usage") == expected


FAILURES: list[tuple[tuple[int, dict[str, Any]], int, str, str]] = [
    (refusal(400, "InvalidParameter", "size"), 400, "InvalidParameter", "invalid_request_error"),
    (refusal(401, "InvalidApiKey"), 401, "InvalidApiKey", "invalid_request_error"),
    (refusal(403, "AccessDenied"), 403, "AccessDenied", "permission_error"),
    (refusal(404, "ModelNotFound"), 404, "ModelNotFound", "invalid_request_error"),
    (refusal(429, "Throttling.RateQuota"), 429, "Throttling.RateQuota", "rate_limit_exceeded"),
    (refusal(418, "Odd"), 418, "Odd", "invalid_request_error"),
    (refusal(500, "InternalError.Algo"), 500, "InternalError.Algo", "server_error"),
    # with 200 the code says it
    (refusal(200, "DataInspectionFailed"), 400, "DataInspectionFailed", "invalid_request_error"),
    (refusal(200, "InvalidParameter.DataInspection"), 400, "InvalidParameter.DataInspection", "invalid_request_error"),
    (refusal(200, "InvalidURL.Timeout"), 400, "InvalidURL.Timeout", "invalid_request_error"),
    (refusal(200, "InvalidApiKey"), 401, "InvalidApiKey", "invalid_request_error"),
    (refusal(200, "Model.AccessDenied"), 403, "Model.AccessDenied", "permission_error"),
    (refusal(200, "ModelNotFound"), 404, "ModelNotFound", "invalid_request_error"),
    (refusal(200, "Throttling"), 429, "Throttling", "rate_limit_exceeded"),
    (refusal(200, "Throttling.AllocationQuota"), 429, "Throttling.AllocationQuota", "rate_limit_exceeded"),
    (refusal(200, "InternalError"), 500, "InternalError", "server_error"),
    (refusal(200, "InternalError.Timeout"), 504, "InternalError.Timeout", "server_error"),
    (refusal(200, "RequestTimeOut"), 504, "RequestTimeOut", "server_error"),
    (refusal(200, "ServiceUnavailable"), 503, "ServiceUnavailable", "server_error"),
    (refusal(200, "NobodyKnows"), 502, "NobodyKnows", "server_error"),
    # of tasks
    (task_answer("t", "FAILED", code="DataInspectionFailed", message="No."), 400, "DataInspectionFailed",
     "invalid_request_error"),
    (task_answer("t", "FAILED"), 502, "FAILED", "server_error"),
    (task_answer("t", "CANCELED"), 502, "CANCELED", "server_error"),
    (task_answer("t", "UNKNOWN"), 502, "UNKNOWN", "server_error"),
    (task_answer("t", "SUCCEEDED", {"code": "InternalError", "message": "No."}, {"code": "x"}), 500, "InternalError",
     "server_error"),
    # of something in between
    ((502, {}), 502, "502", "server_error"),
    ((400, {"error": {"message": "No.", "code": "bad"}}), 400, "bad", "invalid_request_error"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "status", "code", "kind"), FAILURES, ids=[f"{s[0]} {c}" for s, _, c, _ in FAILURES])
def test_failures(said: tuple[int, dict[str, Any]], status: int, code: str, kind: str) -> None:
    answer = answer_of(said)
    assert answer.failure is not None
    assert (answer.failure.status, answer.failure.code) == (status, code)
    body = orjson.loads(failure_body(answer.failure, answer.request_id))
    assert body["error"]["type"] == kind
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body.get("request_id") == said[1].get("request_id")


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"output":7}', b'{"output":{"choices":[7],"results":[7]}}'])
def test_an_answer_that_says_nothing(body: bytes) -> None:
    answer = read_answer(200, body)
    assert (answer.images, answer.failure, answer.task_id) == ([], None, None)


@pytest.mark.parametrize("task_id", ["../x", "a/b", "a?b", "", "a\r\n", "x" * 200, 7])
def test_a_task_id_that_could_be_another_path(task_id: object) -> None:
    assert read_answer(200, orjson.dumps({"output": {"task_id": task_id, "task_status": "PENDING"}})).task_id is None


def test_words_of_an_upstream_are_bounded() -> None:
    answer = answer_of(refusal(400, "x" * 500, "y" * 10000))
    assert answer.failure is not None
    assert (answer.failure.code, len(answer.failure.message)) == ("400", 4096)
    assert answer.request_id == REQUEST_ID
    assert failure_body(Failure(400, "c", "m"), None) == orjson.dumps(
        {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": "c"}}
    )
    assert Image("u", None).revised_prompt is None
