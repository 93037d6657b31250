"""Recorded content by reference: into files or an object store, and into the record where it is.

Variables of OpenTelemetry's own instrumentations ask for it: OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK=upload, and
OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH, _UPLOAD_FORMAT and _UPLOAD_MAX_QUEUE_SIZE. Each field with content becomes
a file `<date>/<hour>/<request id>_inputs.json` (or `_outputs`, `_system_instruction`, `_error`), exactly as it would be
on a span: redacted, media as facts, fitted. The record gets a field beside it that says where (`names.CONTENT_REFS`);
the line has that field and not the content, spans and events have both as `observer.events` says.

The observer's loop only puts it into a queue that is bounded by requests and bytes; threads write. What cannot be
queued has no reference. A reference does not promise that the file is there: it may be written a moment later, or not
at all where the store fails, which is counted. Where the store can never be used nothing is stored, and the content
does not come into the line either: who sends it elsewhere does not want it there.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import orjson

from observability import names
from observability.environment import Variables, without_secrets
from observability.log import get_logger
from observability.observer.store import Place, StoreError, Stores
from observability.record import Record

HOOK: Final = "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK"
BASE_PATH: Final = "OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH"
FORMAT: Final = "OTEL_INSTRUMENTATION_GENAI_UPLOAD_FORMAT"
QUEUE_SIZE: Final = "OTEL_INSTRUMENTATION_GENAI_UPLOAD_MAX_QUEUE_SIZE"

REQUESTS_MAX: Final = 2048
"""That wait or are being written, where nobody says another number: some seconds of what an object store takes. The
20 of OpenTelemetry's are for one application."""
BYTES_MAX: Final = 32 << 20
"""Of these. As for events: some hundreds of the largest kind, ten thousand ordinary chats."""
WRITERS: Final = 8
"""Threads. One waits for each answer of an object store: at 50 ms and two files a request eight take 80 requests/s."""
SAY_EVERY_S: Final = 60.0
"""A store that fails, fails for each file; the counter has them all."""

OFF: Final = "upload_off"
QUEUE_FULL: Final = "upload_queue_full"
FAILED: Final = "upload_failed"
SHUTDOWN: Final = "upload_shutdown"

_SUFFIXES: Final = {
    names.GEN_AI_INPUT_MESSAGES: "inputs",
    names.GEN_AI_SYSTEM_INSTRUCTIONS: "system_instruction",
    names.GEN_AI_OUTPUT_MESSAGES: "outputs",
    names.SLUICEWAY_ERROR_BODY: "error",
}
_HOUR_NS: Final = 3_600_000_000_000

Dropped = Callable[[str, int], None]
"""(reason, requests). Called in any thread."""

_log = get_logger(__name__)


class Uploading(NamedTuple):
    """What the environment asks for."""

    wanted: bool = False
    base_path: str = ""
    lines: bool = False
    """A line for each message (jsonl), not a list of them."""
    requests_max: int = REQUESTS_MAX
    complaints: tuple[str, ...] = ()


def uploading_of(environ: Mapping[str, str]) -> Uploading:
    """Read the variables."""
    variables = Variables(environ, "LOGS")
    hook = variables.get(HOOK)
    if hook.lower() != "upload":
        return Uploading(complaints=(f"{HOOK}: {hook} is not known; upload would be right",) if hook else ())
    form = variables.get(FORMAT).lower() or "json"
    if form not in {"json", "jsonl"}:
        variables.complaints.append(f"{FORMAT}: {form} is not known; json is used, jsonl would be right too")
    requests_max = variables.number(QUEUE_SIZE, REQUESTS_MAX, 1)
    return Uploading(True, variables.get(BASE_PATH), form == "jsonl", requests_max, tuple(variables.complaints))


def open_uploads(wish: Uploading, dropped: Dropped) -> "Uploads | None":
    """Start what is asked for; None: nothing is. What is wrong with it is said in the log."""
    if not wish.wanted:
        return None
    place = None
    try:
        if not wish.base_path:
            raise StoreError("it is not set; a folder or an URL like s3://bucket/folder would be right")
        place = Place(wish.base_path)
    except Exception as error:  # noqa: BLE001 - a backend that does not import must not cost the log and the metrics
        reason = str(error) if isinstance(error, StoreError) else repr(error)
        _log.error("content_not_stored", reason=without_secrets(f"{BASE_PATH}: {reason}"))
    return Uploads(place, dropped, lines=wish.lines, requests_max=wish.requests_max)


class _Upload(NamedTuple):
    """One request's."""

    files: list[tuple[str, bytes]]
    bytes: int


class Uploads:
    """Queue and threads. `place` None: it can never be written to."""

    def __init__(
        self,
        place: Place | None,
        dropped: Dropped,
        *,
        lines: bool = False,
        requests_max: int = REQUESTS_MAX,
        bytes_max: int = BYTES_MAX,
        writers: int = WRITERS,
    ) -> None:
        self._place = place
        self._dropped = dropped
        self._lines = lines
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._queue: deque[_Upload] = deque()
        self._owed = self._owed_bytes = 0
        """Queued or being written."""
        self._closing = False
        self._given_up = False
        lock = threading.Lock()
        self._came, self._settled = threading.Condition(lock), threading.Condition(lock)
        self._hour, self._folder = -1, ""
        self._said_at = -SAY_EVERY_S
        for number in range(0 if place is None else writers):
            threading.Thread(target=self._run, args=(number == 0,), name=f"uploads-{number}", daemon=True).start()

    def take(self, records: Iterable[Record]) -> None:
        """Queue the content of these records, and put references into them. Never waits, never raises."""
        for record in records:
            fields = record["fields"]
            if names.CONTENT.isdisjoint(fields):
                continue
            try:
                reason = self._take(record)
            except Exception as error:  # noqa: BLE001 - a record that is odd must not cost the others
                # not its message: that may have the content
                _log.error("upload_failed", error=type(error).__name__)
                reason = FAILED
            if reason:
                fields[names.SLUICEWAY_CONTENT_DROPPED] = reason
                self._dropped(reason, 1)

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s`; what is left then is counted as shutdown."""
        with self._settled:
            self._closing = True
            self._came.notify_all()
            self._settled.wait_for(lambda: not self._owed, timeout_s)
            left = self._owed
            self._given_up = True
            self._queue.clear()
        if left:
            self._dropped(SHUTDOWN, left)

    def _take(self, record: Record) -> str:
        """The reason why it is not stored, or nothing."""
        if self._place is None:
            return OFF
        fields = record["fields"]
        stem = f"{self._folder_of(record['end_ns'])}/{fields[names.SLUICEWAY_REQUEST_ID]}"
        ending = "jsonl" if self._lines else "json"
        files = {
            ref: (f"{stem}_{_SUFFIXES[name]}.{ending}", fields[name].encode())
            for name, ref in names.CONTENT_REFS.items()
            if name in fields
        }
        upload = _Upload(list(files.values()), sum(len(data) for _, data in files.values()))
        with self._came:
            if self._closing:
                return SHUTDOWN
            if self._owed >= self._requests_max or self._owed_bytes + upload.bytes > self._bytes_max:
                return QUEUE_FULL
            self._queue.append(upload)
            self._owed += 1
            self._owed_bytes += upload.bytes
            self._came.notify()
        fields.update({ref: f"{self._place.url}{name}" for ref, (name, _) in files.items()})
        return ""

    def _folder_of(self, end_ns: int) -> str:
        """By day and hour, UTC: a day can be removed whole, and no folder grows without end."""
        hour = end_ns // _HOUR_NS
        if hour != self._hour:
            self._hour, self._folder = hour, time.strftime("%Y-%m-%d/%H", time.gmtime(hour * 3600))
        return self._folder

    def _run(self, probing: bool) -> None:
        assert self._place is not None
        stores = Stores(self._place)
        if probing:
            try:
                stores.probe()
            except Exception as error:  # noqa: BLE001 - it may come back; each request tries again
                self._say(error)
        while (upload := self._next()) is not None:
            fault: Exception | None = None
            try:
                for name, data in upload.files:
                    stores.write(name, _as_lines(data) if self._lines else data + b"\n")
            except Exception as error:  # noqa: BLE001 - as above
                fault = error
            with self._settled:
                given_up = self._given_up  # then `close` has counted it
                self._owed -= 1
                self._owed_bytes -= upload.bytes
                self._settled.notify_all()
            if fault is not None and not given_up:
                self._dropped(FAILED, 1)
                self._say(fault)

    def _next(self) -> _Upload | None:
        with self._came:
            while not self._queue:
                if self._closing:
                    return None
                self._came.wait()
            return self._queue.popleft()

    def _say(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said_at < SAY_EVERY_S:
            return
        self._said_at = now
        _log.error("content_not_stored", reason=without_secrets(f"{type(error).__name__}: {error}"))


def _as_lines(data: bytes) -> bytes:
    """Each message on a line, with its number as OpenTelemetry's own have it; an error as one line."""
    value = orjson.loads(data)
    if not isinstance(value, list):
        return data + b"\n"
    return b"".join(
        orjson.dumps({**item, "index": number} if isinstance(item, dict) else item) + b"\n"
        for number, item in enumerate(value)
    )
