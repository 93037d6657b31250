"""Usage objects: one reader for the spellings of the OpenAI and DashScope protocols (Anthropic's is in `anthropic`).

Both count cached tokens inside the input and reasoning tokens inside the output (protocols.md §4.1), which is how
Findings counts too. Whatever is not a plausible number is ignored; what a later object does not mention stays.
"""

import re
from collections.abc import Mapping
from typing import Any

from observability.findings import Findings

COUNT_MAX = 2**53
"""Larger numbers are nonsense, and JSON readers downstream keep integers exact only up to here."""

_SIZE = re.compile(r"(\d{1,6})[x*](\d{1,6})")
_MEDIA = frozenset({"image_tokens", "audio_tokens", "video_tokens"})
_SECONDS = ("seconds", "duration", "output_video_duration", "video_duration")
# The first that is there counts. A duration is what a video is billed by, of source and result together where both are.
_UNITS = frozenset({"image_count", "video_count", "characters", "width", "size", *_SECONDS})
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens")
# Beside the tokens, where the details have none: Moonshot's and DeepSeek's.
_TRANSCRIPTION_DETAILS = "input_token_details"  # without the s, there alone
_DETAILS = frozenset(f"{tokens}_tokens_details" for tokens in ("prompt", "input", "completion", "output"))
_BEYOND_TOKENS = _MEDIA | _UNITS | _DETAILS | {*_CACHED, _TRANSCRIPTION_DETAILS}
_NOTHING: Mapping[str, Any] = {}


def count_of(value: object) -> int | None:
    """A non-negative integer, or None: `value` is none (a float without fraction counts as one, a bool does not)."""
    if type(value) is int:
        return value if 0 <= value <= COUNT_MAX else None
    if type(value) is float and 0 <= value <= COUNT_MAX and value.is_integer():
        return int(value)
    return None


def size_of(value: object) -> tuple[int, int] | None:
    """Width and height of `1024x1024` (OpenAI) or `1024*1024` (DashScope)."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)) is not None:
        return int(match[1]), int(match[2])
    return None


def read_usage(findings: Findings, usage: object) -> None:
    """Take over what `usage` says. Anything but a non-empty object is no usage."""
    if not isinstance(usage, dict) or not usage:
        return
    findings.usage_seen = True
    tokens = usage.get("prompt_tokens")
    if type(tokens) is not int or not 0 <= tokens <= COUNT_MAX:  # what is plain is taken without a call
        tokens = _first(usage, "prompt_tokens", "input_tokens")
    if tokens is not None:
        findings.input_tokens = tokens
    tokens = usage.get("completion_tokens")
    if type(tokens) is not int or not 0 <= tokens <= COUNT_MAX:
        tokens = _first(usage, "completion_tokens", "output_tokens")
    if tokens is not None:
        findings.output_tokens = tokens
    if not _BEYOND_TOKENS.isdisjoint(usage):
        inputs = _details(usage, "prompt_tokens_details", "input_tokens_details")
        outputs = _details(usage, "completion_tokens_details", "output_tokens_details")
        if _TRANSCRIPTION_DETAILS in usage:
            inputs = _details(usage, "input_tokens_details", _TRANSCRIPTION_DETAILS)
        _read_details(findings, usage, inputs, outputs)


def read_total(findings: Findings, usage: object) -> None:
    """A total alone is the input: DashScope and older vLLM say no more of embeddings and rerank."""
    if isinstance(usage, dict) and findings.input_tokens is None and findings.output_tokens is None:
        findings.input_tokens = count_of(usage.get("total_tokens"))


def seconds_of(value: object) -> float | None:
    """A length of time, or None: `value` is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX:
        return float(value)
    return None


def _read_details(
    findings: Findings, usage: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> None:
    tokens = count_of(inputs.get("cached_tokens"))
    if tokens is None:
        tokens = _first(usage, *_CACHED)
    if tokens is not None:
        findings.cache_read_tokens = tokens
    if (tokens := _first(inputs, "cache_write_tokens", "cache_creation_input_tokens")) is not None:
        findings.cache_creation_tokens = tokens
    if outputs and (tokens := count_of(outputs.get("reasoning_tokens"))) is not None:
        findings.reasoning_tokens = tokens
    if not (_MEDIA.isdisjoint(inputs) and _MEDIA.isdisjoint(outputs) and _MEDIA.isdisjoint(usage)):
        _read_media(findings, usage, inputs, outputs)
    if not _UNITS.isdisjoint(usage):
        _read_units(findings, usage)


def _read_media(
    findings: Findings, usage: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> None:
    if (tokens := _media_tokens("image_tokens", usage, inputs, outputs)) is not None:
        findings.image_tokens = tokens
    if (tokens := _media_tokens("audio_tokens", usage, inputs, outputs)) is not None:
        findings.audio_tokens = tokens
    if (tokens := _media_tokens("video_tokens", usage, inputs, outputs)) is not None:
        findings.video_tokens = tokens


def _read_units(findings: Findings, usage: Mapping[str, Any]) -> None:
    """What is billed by other units than tokens (DashScope, and OpenAI's transcriptions by the second)."""
    if (number := count_of(usage.get("image_count"))) is not None:
        findings.images = number
    if (number := count_of(usage.get("video_count"))) is not None:
        findings.videos = number
    if (number := count_of(usage.get("characters"))) is not None:
        findings.characters = number
    for name in _SECONDS:
        if (seconds := seconds_of(usage.get(name))) is not None:
            findings.seconds = seconds
            break
    if "video_count" in usage:
        return  # the size is that of the video
    width, height = count_of(usage.get("width")), count_of(usage.get("height"))
    if width is not None and height is not None:
        findings.image_width, findings.image_height = width, height
    elif (size := size_of(usage.get("size"))) is not None:
        findings.image_width, findings.image_height = size


def _first(values: Mapping[str, Any], name: str, other_name: str) -> int | None:
    number = count_of(values.get(name))
    return count_of(values.get(other_name)) if number is None else number


def _details(usage: Mapping[str, Any], name: str, other_name: str) -> Mapping[str, Any]:
    """Both spellings may stand side by side (DashScope's multimodal answers with a cache): one object of the two."""
    one, other = usage.get(name), usage.get(other_name)
    if not isinstance(one, dict):
        return other if isinstance(other, dict) else _NOTHING
    return {**other, **one} if isinstance(other, dict) else one


def _media_tokens(
    name: str, usage: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> int | None:
    """The total of one kind of media: as given at the top, else input and output together."""
    if (total := count_of(usage.get(name))) is not None:
        return total
    ins, outs = count_of(inputs.get(name)), count_of(outputs.get(name))
    return None if ins is None and outs is None else (ins or 0) + (outs or 0)
