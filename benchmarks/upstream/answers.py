"""What all protocols share: the question as it was asked, the text that is answered, and how tokens are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from benchmarks.upstream.fills import MARK, PIECE_BYTES, Fill, Parts
from benchmarks.upstream.ledger import Usage
from benchmarks.upstream.script import Script
from benchmarks.upstream.store import Store
from benchmarks.upstream.upload import Upload

CREATED = 1_716_430_652  # the one of the vendor's documentation: answers have no clock in them
JSON = "application/json"
SSE = "text/event-stream"
LONGEST_ECHO = 16 * 1024  # characters of the question that are repeated
TOKENS_PER_IMAGE = 100
RESULT_BYTES = 3072  # of an image, a film or a sound whose size the script does not name


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event, encoded. `output`: carries generated output; `usage`: what was said with it, for the ledger."""

    parts: Parts
    output: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response before pace and faults: one body (`parts`) or a stream (`events`, made while it is sent)."""

    content_type: str
    request_id: str
    parts: Parts | None = None
    events: Iterable[Event] = ()
    usage: Usage | None = None  # of an answer that is no stream
    error_event: Event | None = None  # what the protocol sends when a stream fails
    status: int = 200
    id_header: str = "x-request-id"


@dataclass(slots=True)
class Asked:
    """A request as the answers see it."""

    method: str
    path: str  # without controls, without the place of a compatible mode, without a trailing slash; still encoded
    target: str  # as it came, with its query
    headers: Mapping[str, str]  # whatever the case of their names
    upload: Upload
    script: Script
    store: Store

    @property
    def document(self) -> dict[str, Any]:
        """The JSON body, or the fields of a form (all of them text)."""
        return self.upload.document

    @property
    def query(self) -> dict[str, str]:
        """The last of each name."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def origin(self) -> str:
        """Scheme, host and port of this upstream, as the client wrote them."""
        return f"{self.store.scheme}://{self.headers.get('Host', '')}"

    @property
    def model(self) -> str:
        """As asked."""
        return str(self.upload.document.get("model", ""))

    @property
    def name(self) -> str:
        """32 hexadecimal digits that depend on the request alone."""
        return identity(self.upload.digest)

    @property
    def streams(self) -> bool:
        """The OpenAI and Anthropic protocols ask so."""
        return self.upload.document.get("stream") in (True, "true", "True", "1")

    @property
    def streams_natively(self) -> bool:
        """DashScope's own protocol asks so."""
        return self.headers.get("X-DashScope-SSE") == "enable" or SSE in self.headers.get("Accept", "")

    @property
    def is_async(self) -> bool:
        """DashScope's own protocol asks for a task."""
        return self.headers.get("X-DashScope-Async") == "enable"

    def number(self, name: str, default: int) -> int:
        """A count in the body, or in a form."""
        return int(self.upload.document.get(name) or default)

    def object(self, name: str) -> dict[str, Any]:
        """An object in the body, empty where there is none."""
        found = self.upload.document.get(name)
        return found if isinstance(found, dict) else {}

    def result_url(self, name: str, kind: str) -> str:
        """Where this upstream serves a result, as the script wants it served; `kind` is png, wav or mp4."""
        script = self.script
        size = script.result_bytes if script.result_bytes >= 0 else RESULT_BYTES
        controls = f"/sim:{quote(script.result.replace(';', ','), safe='=,')}" if script.result else ""
        return f"{script.result_at or self.origin}{controls}/results/{name}-{size}.{kind}"


def tokens_of(text_bytes: int) -> int:
    """Four bytes of UTF-8 are a token, rounded up."""
    return (text_bytes + 3) // 4


def identity(digest: bytes) -> str:
    """32 hexadecimal digits that depend on the request alone."""
    return digest[:16].hex()


def request_id(digest: bytes) -> str:
    """The same as DashScope writes its ids, with dashes."""
    name = digest[:16].hex()
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"


def question_of(messages: Any) -> tuple[str, int]:
    """Text of the last user message, and the input tokens of all: their text, and a fixed number for each image."""
    last, tokens = "", 0
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        text = content if isinstance(content, str) else ""
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                text += part["text"]
            else:
                tokens += TOKENS_PER_IMAGE
        tokens += tokens_of(len(text.encode()))
        if isinstance(message, dict) and message.get("role") == "user":
            last = text
    return last, tokens


@dataclass(frozen=True, slots=True)
class Text:
    """The generated text: an echo of the question, or `answer-bytes` of words that are made when they are sent."""

    words: str
    filled: int  # bytes; -1: the words count

    @property
    def value(self) -> str:
        """The text, or MARK where it is filled in later."""
        return self.words if self.filled < 0 else MARK

    def fills(self) -> tuple[Fill, ...]:
        """What replaces MARK in a JSON answer."""
        return () if self.filled < 0 else (Fill("text", 0, self.filled),)

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return len(self.words.encode()) if self.filled < 0 else self.filled

    def deltas(self, events: int) -> Iterator[tuple[str, tuple[Fill, ...], int]]:
        """`events` pieces of nearly equal length (0: a word each, or 64 KiB each): value, fill, bytes so far."""
        if self.filled >= 0:
            count = events or max(1, -(-self.filled // PIECE_BYTES))
            for n in range(count):
                start, end = self.filled * n // count, self.filled * (n + 1) // count
                yield MARK, (Fill("text", start, end - start),), end
            return
        so_far = 0
        for piece in _cut(self.words, events):
            so_far += len(piece.encode())
            yield piece, (), so_far


def text_for(question: str, script: Script) -> Text:
    """What a model answers to this question under this script."""
    if script.answer_bytes >= 0:
        return Text("", script.answer_bytes)
    words = f"You said: {question[:LONGEST_ECHO]}"
    if script.events > len(words):  # every event with output carries at least one character
        words = (words + " ") * (script.events // (len(words) + 1) + 1)
    return Text(words, -1)


def _cut(words: str, events: int) -> Iterator[str]:
    if events:
        for n in range(events):
            yield words[len(words) * n // events : len(words) * (n + 1) // events]
        return
    start = 0
    while start < len(words):
        end = words.find(" ", start + 1)
        end = len(words) if end < 0 else end
        yield words[start:end]
        start = end
