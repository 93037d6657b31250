"""What a scanner learns from the bytes of one response. Data only: scanners write it, the record reads it."""

from collections.abc import Sequence
from typing import ClassVar


class Findings:
    """Facts of one response. None means: the response did not say.

    Tokens are normalised: `input_tokens` is the total, cached ones included, for every protocol. What nobody has set is
    the class's: a response says a few of these, and to set them all to None first costs more than to read it.
    """

    NAMES: ClassVar[tuple[str, ...]]
    """Of all facts, in their order here."""

    response_id: str | None = None
    response_model: str | None = None
    upstream_request_id: str | None = None
    finish_reasons: Sequence[str] = ()
    """One per choice, in the order of their index; bounded to 128."""

    input_tokens: int | None = None
    raw_input_tokens: int | None = None
    """As the upstream counts them, where that is without cached ones."""
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    image_tokens: int | None = None
    video_tokens: int | None = None
    audio_tokens: int | None = None
    images: int | None = None
    image_width: int | None = None
    image_height: int | None = None
    characters: int | None = None
    seconds: float | None = None
    videos: int | None = None
    documents: int | None = None
    task_id: str | None = None

    usage_seen: bool = False
    """A usage object arrived."""
    usage_final: bool = False
    """... and it is the response's last word (the response was complete, or usage came with or after the finish)."""

    events: int = 0
    """Server-sent events seen, comments aside."""
    output_events: int = 0
    """Events that carried output: the estimate of output tokens where no usage came."""
    first_output: bool = False
    """An event (or a plain response) carried output. The caller takes the time when it turns true."""
    complete: bool = False
    """The response is whole in the sense of its protocol, though the connection may go on or be cut after it."""

    error_code: str | None = None
    """The provider's code of an error that the response carries, whatever its HTTP status."""
    failed: bool = False
    """The scanner met what it cannot read and switched itself off: what is known may be incomplete."""


NOTHING_FOUND = Findings()
"""Of an answer that nobody looked at. Nobody writes it."""

Findings.NAMES = tuple(name for name in Findings.__annotations__ if name != "NAMES")
