"""Puts a stream's events together to the answer that would have come without streaming, in the protocol's own shape.

A composer is told each event that the scanner has decoded (1.6 µs) and holds the text of what it says, not the
events: 20 times less. So whoever makes messages of answers needs to know one shape of each protocol.
"""

from typing import Any, Final

import orjson

from observability.content.keepers import Keeper, Limits
from observability.scanners.base import WHOLE_BYTES_MAX, Reader
from observability.wire.json_paths import Paths

PARTS_MAX: Final = 128
"""Choices, blocks, tool calls of one: the OpenAI protocol's own limit of `n`."""
PART_BYTES: Final = 1024
"""What each of these counts for beside its text: objects, and an id and a name of up to 256 characters."""


class Composer(Keeper):
    """Hears the events of one stream. The keeper of an answer that streams."""

    __slots__ = ("_document", "_error", "_limits")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._document: dict[str, Any] | None = None  # an answer that came whole
        self._error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        """Nothing: it hears of events."""

    def hear(self, name: bytes, document: dict[str, Any]) -> None:
        """One event. Never raises: what is odd in one costs the recording, not the scanner's findings."""
        if self.lost:
            return
        try:
            if document.get("error") or name == b"error" or document.get("type") == "error":
                self._error = document
                return
            if self._held_bytes > self._limits.body_bytes:
                self.cut = True
                return
            held = self._event(name, document)
            if held and not self._hold(self._held_bytes + held):
                self._forget()
        except Exception:  # noqa: BLE001
            self._fail()

    def _give_up(self) -> None:
        super()._give_up()
        self._forget()

    def body(self, document: dict[str, Any]) -> None:
        """There is no stream: an answer that is one document."""
        if self._hold(WHOLE_BYTES_MAX):
            self._document = document

    def contents(self) -> bytes:
        """The answer as JSON."""
        document = self._document if self._document is not None else self._answer()
        if self._error is not None:  # what was said before it is content too
            document = {**document, "error": self._error.get("error", self._error)} if document else self._error
        try:
            data = orjson.dumps(document)
        except TypeError:  # half a pair of surrogates
            return b""
        self._document = self._error = None
        return data

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        """Take an event; how many characters more are held."""
        raise NotImplementedError

    def _answer(self) -> dict[str, Any]:
        """Empty where nothing was said."""
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError


class Composing(Reader):
    """A reader of events with a composer beside it."""

    __slots__ = ("_composer", "_reader", "deaf")

    def __init__(self, reader: Reader, composer: Composer) -> None:
        super().__init__(reader.findings)
        self._reader = reader
        self._composer = composer
        self.deaf = False
        """What the reader is told is not the whole event."""

    @property
    def paths(self) -> Paths:  # type: ignore[override]
        """As the reader."""
        return self._reader.paths

    def expect(self, choices: int) -> None:
        """As the reader."""
        self._reader.expect(choices)

    def event(self, name: bytes, document: dict[str, Any]) -> None:
        """Both hear it."""
        if not self.deaf:
            self._composer.hear(name, document)
        self._reader.event(name, document)

    def body(self, document: dict[str, Any]) -> None:
        """Both hear it."""
        self._composer.body(document)
        self._reader.body(document)

    def done(self) -> None:
        """As the reader."""
        self._reader.done()

    def end(self) -> None:
        """As the reader."""
        self._reader.end()
