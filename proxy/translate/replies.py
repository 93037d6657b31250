"""Heads of the answers that an OpenAI client gets of a DashScope service: of our own making, save the request's id."""

from http import HTTPStatus

from proxy.translate.answers import Answer
from proxy.upstream.response import ResponseHead


def lines_of(answer: Answer, head: ResponseHead) -> list[tuple[bytes, bytes]]:
    """What of DashScope's head an OpenAI client knows: the id of the request."""
    lines = [(name, value) for name, value in head.headers if name.lower() == b"x-request-id"]
    if not lines and answer.request_id is not None and answer.request_id.isascii() and answer.request_id.isprintable():
        lines = [(b"x-request-id", answer.request_id.encode("ascii"))]
    return lines


def head_of_reply(
    status: int,
    lines: list[tuple[bytes, bytes]],
    content_length: int | None,
    content_type: bytes = b"application/json",
) -> ResponseHead:
    """The head of an answer of our own making; `content_length` None: it comes in chunks."""
    length = [] if content_length is None else [(b"Content-Length", b"%d" % content_length)]
    try:
        reason = HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        reason = b""
    return ResponseHead(
        status=status,
        reason=reason,
        http_version="1.1",
        headers=[(b"Content-Type", content_type), *length, *lines],
        content_length=content_length,
        framing="chunked" if content_length is None else "length",
        keep_alive=True,
        content_type=content_type,
        content_encoding=b"",
        connection=None,
        request_id=next((value for name, value in lines if name.lower() == b"x-request-id"), None),
    )


def in_a_comment(status: str | None) -> bytes:
    """An upstream's word inside a line of our own."""
    return status.lower().encode() if status is not None and status.isascii() and status.isalpha() else b"under way"
