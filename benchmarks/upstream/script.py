"""What a request asks the simulated upstream to do wrong, or slowly.

A control is a name and a value. It may come in three ways, the later one wins, so that any SDK can use one of them:

* a segment of the path: ``/sim:status=503,retry-after=2/v1/chat/completions`` (in a service's or SDK's ``base_url``);
* the query: ``?sim-status=503&sim-retry-after=2``;
* headers: ``x-sim-status: 503``.

A *chunk* is one write of the response body: one SSE event, or ``chunk-bytes`` of it; a JSON answer is one chunk unless
``chunk-bytes`` cuts it. ``…-after=N`` acts when N chunks have gone out; 0 is directly after the response head.

==================== ==================================================================================================
status=N             answer with status N and an error body in the shape of the protocol
retry-after=S        send this header with it (seconds)
error-code=X         the error's code instead of the usual one for the status
error-form=FORM      how the error comes: json (default) | sse (the status, and an event) | inside (JSON with status
                     200) | sse-inside (an event in a stream with status 200)
early=1              answer without reading the request body
read-pace-ms=N       wait between two pieces of the upload (64 KiB each)
head-delay-ms=N      wait before the response head
first-token-delay-ms=N  streams: wait between the head (with any role-only event) and the first event with output
pace-ms=N            wait between two events with output
events=N             streams: number of events with output
keepalives=N         streams: N comments before the first event
answer-bytes=N       size of the generated text or speech, or of each image (as base64, inline); made on the fly, never
                     held
result-bytes=N       size of what the result URLs in the answer lead to
result=CONTROLS      controls that ride in the result URLs, for those who fetch them: ``status=404;pace-ms=5``
result-at=URL        another place (``http://host:port``) for the results than this upstream
task-steps=N         of the task that this request makes: so many fetches find it unfinished (default 2)
task-end=STATUS      SUCCEEDED (default) | PARTLY (one of its results failed) | FAILED | CANCELED | UNKNOWN
chunk-bytes=N        cut the body into writes of N bytes, wherever the events end
newline=crlf         end SSE lines with CR LF
usage=WHERE          streams of the OpenAI protocol: late (default: one more chunk, if asked for) | finish (in the chunk
                     with finish_reason) | every (in each chunk, cumulative) | absent (never). Elsewhere: absent or not
cached-tokens=N      of the input tokens, said in the details; Anthropic's are not in the input, but beside it
cache-write-tokens=N the same for those that were written to the cache
reasoning-tokens=N   of the output tokens, said in the details
done=0               streams of the OpenAI protocol: no ``data: [DONE]``
error-after=N        streams: after N events with output an error event inside the 200 stream, then the end
framing=eof          no length and no chunks: the body ends with the connection
gzip=1               compress if the client accepts gzip; gzip=force: in any case
stall-after=N        nothing more after N chunks, until the client leaves
gate-after=N         the same, until ``POST /sim/open?id=…``
reset-after=N        TCP reset after N chunks
truncate-after=N     close (FIN) after N chunks, before the body is complete
malformed-after=N    after N chunks a chunk header that is none, then close
==================== ==================================================================================================

An unknown control or a bad value is answered 400, so that a misspelt test cannot pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote

PATH_MARK = "/sim:"
QUERY_MARK = "sim-"
HEADER_MARK = b"x-sim-"


class ScriptError(ValueError):
    """A control that is unknown or has a value that cannot be meant; the text says which."""


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """The controls of one request, with the defaults of a well-behaved upstream; -1 means never."""

    status: int = 200
    retry_after: int = -1
    error_code: str = ""
    error_form: str = "json"
    early: bool = False
    read_pace_ms: int = 0
    head_delay_ms: int = 0
    first_token_delay_ms: int = 0
    pace_ms: int = 0
    events: int = 0
    keepalives: int = 0
    answer_bytes: int = -1
    result_bytes: int = -1
    result: str = ""
    result_at: str = ""
    task_steps: int = 2
    task_end: str = "SUCCEEDED"
    chunk_bytes: int = 0
    newline: str = "lf"
    usage: str = "late"
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    done: bool = True
    error_after: int = -1
    framing: str = ""
    gzip: str = ""
    stall_after: int = -1
    gate_after: int = -1
    reset_after: int = -1
    truncate_after: int = -1
    malformed_after: int = -1


NORMAL = Script()
_DEFAULTS: dict[str, bool | int | str] = dataclasses.asdict(NORMAL)
_WORDS = {
    "usage": ("late", "finish", "every", "absent"),
    "newline": ("lf", "crlf"),
    "framing": ("", "eof"),
    "gzip": ("", "1", "force"),
    "error-form": ("json", "sse", "inside", "sse-inside"),
    "task-end": ("SUCCEEDED", "PARTLY", "FAILED", "CANCELED", "UNKNOWN"),
}


def read_script(raw_path: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, Script]:
    """Path without query and without controls, and the script; raises ScriptError."""
    path, _, query = raw_path.partition("?")
    found: dict[str, str] = {}
    if PATH_MARK in path:
        before, _, rest = path.partition(PATH_MARK)
        segment, slash, after = rest.partition("/")
        path = before + slash + after
        for item in unquote(segment).split(","):
            name, _, value = item.partition("=")
            found[name] = value
    if QUERY_MARK in query:
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name.startswith(QUERY_MARK):
                found[name.removeprefix(QUERY_MARK)] = value
    for raw_name, raw_value in headers:
        lowered = raw_name.lower()
        if lowered.startswith(HEADER_MARK) and lowered != b"x-sim-id":
            found[lowered[len(HEADER_MARK) :].decode("latin-1")] = raw_value.decode("latin-1")
    if not found:
        return path, NORMAL
    fields: dict[str, Any] = {name.replace("-", "_"): _typed(name, value) for name, value in found.items()}
    return path, Script(**fields)


def _typed(name: str, value: str) -> bool | int | str:
    """The value of one control; raises ScriptError."""
    default = _DEFAULTS.get(name.replace("-", "_"))
    if default is None or "_" in name:
        raise ScriptError(f"unknown control {name!r}")
    if isinstance(default, bool):
        if value not in ("0", "1"):
            raise ScriptError(f"{name} is 0 or 1, not {value!r}")
        return value == "1"
    if isinstance(default, int):
        if not value.isdecimal():
            raise ScriptError(f"{name} is a whole number, not {value!r}")
        return int(value)
    if name in _WORDS and value not in _WORDS[name]:
        raise ScriptError(f"{name} is one of {', '.join(filter(None, _WORDS[name]))}, not {value!r}")
    return value
