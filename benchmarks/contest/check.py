"""Does a contestant do what it is measured for? Asked once of each, before its first round.

Every answer is 200, and its bytes are the upstream's, or at least its content and usage are, where a contestant writes
answers anew; an upload reaches the upstream whole; every event of a stream comes, with the end; Sluiceway's log line
has the tokens. Who fails at one is left out of the workloads that need it, with a line that says why.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.contest import asked
from benchmarks.contest.contestants import Running

TIMEOUT_S = 30.0
UPLOAD_BYTES = 40_000
LARGE_BYTES = 8_000_000
LINE_S = 5.0
ALIVE_S = 15.0
"""LiteLLM may still be at the uploads that were given up."""


@dataclass(slots=True)
class Checked:
    """What was found: by workload why it cannot be measured, and whether answers pass as they are."""

    failed: dict[str, str] = field(default_factory=dict)
    same_bytes: bool = True


class _WrongError(Exception):
    """An answer is not what was wanted."""


_TROUBLE = (_WrongError, OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)
"""Of JSON that is quite another too."""


def _ask(running: Running, path: str, body: bytes, timeout: float = TIMEOUT_S) -> bytes:
    parts = urlsplit(running.url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **running.headers})
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise _WrongError(f"{answer.status}: {said[:200]!r}")
    return said


def _same(said: bytes, wanted: bytes) -> bool:
    """True: the same bytes; False: another text of the same; raises _WrongError where it says something else."""
    if said == wanted:
        return True
    one, other = json.loads(said), json.loads(wanted)
    key = "choices" if "choices" in other else "data"
    for mine, theirs in zip(one[key], other[key], strict=True):
        inner = "message" if key == "choices" else None
        left, right = (mine[inner]["content"], theirs[inner]["content"]) if inner else (mine, theirs)
        if left != right:
            raise _WrongError("the answer says something else than the upstream's")
    if any(one["usage"].get(name) != value for name, value in other["usage"].items()):
        raise _WrongError(f"usage is {one['usage']}")
    return False


def _chat(running: Running) -> bool:
    return _same(_ask(running, asked.CHAT_PATH, asked.SMALL_CHAT), asked.CHAT_ANSWER)


def _stream(running: Running) -> bool:
    said = _ask(running, asked.CHAT_PATH, asked.streamed("paced", 5, 5))
    stamps = asked.STAMP.findall(said)
    if len(stamps) != 5 or b"[DONE]" not in said or b'"completion_tokens":5' not in said.replace(b" ", b""):
        raise _WrongError(f"{len(stamps)} events of 5, usage or end missing: {said[-300:]!r}")
    return said == b"".join(asked.event(int(stamp)) for stamp in stamps) + asked.last_event(5)


def _upload(running: Running) -> bool:
    body = asked.upload(UPLOAD_BYTES, "digest")
    image = asked.IMAGE.search(body)
    assert image is not None
    said = json.loads(_ask(running, asked.CHAT_PATH, body))
    if said["choices"][0]["message"]["content"] != hashlib.sha256(image[1]).hexdigest():
        raise _WrongError("the upstream received another image")
    large = asked.upload(LARGE_BYTES)
    received = json.loads(_ask(running, asked.CHAT_PATH, large))["usage"]["prompt_tokens"]
    if received < 0.99 * len(large):
        raise _WrongError(f"the upstream received {received} bytes of {len(large)}")
    return bool(said["usage"]["prompt_tokens"] == len(body) and received == len(large))


def _image(running: Running) -> bool:
    return _same(_ask(running, asked.CHAT_PATH, asked.for_image(300_000)), asked.image_answer(300_000))


def _embeddings(running: Running) -> bool:
    path = running.prefixes.get("embeddings", "") + asked.EMBEDDINGS_PATH
    return _same(_ask(running, path, asked.for_embeddings()), asked.embeddings_answer())


def _line(running: Running) -> bool:
    """The tokens of a chat are in its log line."""
    log = running.log
    if log is None:
        return True
    log.count()
    offset = log.offset
    _chat(running)
    began = time.monotonic()
    while time.monotonic() - began < LINE_S:
        with log.path.open("rb") as file:
            file.seek(offset)
            lines = [line for line in file.read().splitlines() if b'"request"' in line]
        if lines:
            said = json.loads(lines[-1])
            tokens = said.get("gen_ai.usage.input_tokens"), said.get("gen_ai.usage.output_tokens")
            if tokens != (38, 46):
                raise _WrongError(f"tokens {tokens} in the log line")
            return True
        time.sleep(0.05)
    raise _WrongError("no log line")


CHECKS = {
    "chat": _chat,
    "line": _line,
    "paced": _stream,
    "upload": _upload,
    "image": _image,
    "embeddings": _embeddings,
}
NEEDED = {
    "chat": ("chat", "line"),
    "levels": ("chat", "line"),
    "open": ("chat", "line"),
    "paced": ("paced",),
    "poured": ("paced",),
    "idle": ("paced",),
    "upload": ("upload",),
    "crowd": ("upload",),
    "image": ("image",),
    "embeddings": ("embeddings",),
    "mixed": ("paced", "upload", "image"),
}
"""By workload the checks that a contestant must have passed."""


def gone(running: Running) -> str | None:
    """Why it does not even do a small chat any more; None: it does."""
    try:
        _same(_ask(running, asked.CHAT_PATH, asked.SMALL_CHAT, ALIVE_S), asked.CHAT_ANSWER)
    except _TROUBLE as error:
        return str(error) or repr(error)
    return None


def check(running: Running, workloads: Iterable[str]) -> Checked:
    """Asks what those workloads need, and no more: a large upload would leave memory behind."""
    found, reasons = Checked(), {}
    wanted = {workload: needed for workload, needed in NEEDED.items() if workload in workloads}
    for name in dict.fromkeys(name for needed in wanted.values() for name in needed):
        try:
            found.same_bytes &= CHECKS[name](running)
        except _TROUBLE as error:
            reasons[name] = str(error) or repr(error)
    for workload, needed in wanted.items():
        why = next((f"{name}: {reasons[name]}" for name in needed if name in reasons), None)
        if why:
            found.failed[workload] = why
    return found
