"""Answers that are scanned and recorded at once: scanners of `observability.scanners` with a keeper beside them."""

from typing import Final

import orjson

from observability.content.capture import Recording
from observability.content.compose import Composing
from observability.content.keepers import Keeper
from observability.findings import Findings
from observability.scanners import behind, reading, unread
from observability.scanners.base import Reader, Scanner, SseScanner
from observability.wire.sift import Sift
from observability.wire.sse import Part

_VECTORS: Final = frozenset(("embeddings", "text-embedding", "multimodal-embedding"))
"""Operations whose answers are numbers that nobody reads: of 160 KiB an observer would make nothing in 5 ms."""


def recorded_scanner(
    recording: Recording,
    protocol: str,
    operation: str,
    content_type: str,
    status: int,
    content_encoding: str = "",
    *,
    choices: int | None = None,
) -> Scanner:
    """As `observability.scanners.response_scanner`, for an answer that is recorded."""
    framing, reader = reading(protocol, operation, content_type)
    scanner: Scanner
    if framing is None or reader is None:
        scanner = _kept(unread(status), recording, content_type, brief=False)
    else:
        meaning = reader(Findings())
        if choices is not None:
            meaning.expect(choices)
        if framing is SseScanner:
            scanner = ComposingScanner(meaning, recording, protocol, operation)
        else:
            scanner = _kept(framing(meaning), recording, content_type, brief=operation in _VECTORS)
    return behind(content_encoding, scanner) if content_encoding else scanner


def _kept(scanner: Scanner, recording: Recording, content_type: str, *, brief: bool) -> Scanner:
    keeper = recording.open_answer(content_type, brief=brief)
    return scanner if keeper is None else KeepingScanner(scanner, keeper)


class KeepingScanner(Scanner):
    """Hands the decoded pieces to a keeper too."""

    __slots__ = ("_inner", "_keeper")

    def __init__(self, inner: Scanner, keeper: Keeper) -> None:
        super().__init__(inner.findings)
        self._inner = inner
        self._keeper = keeper

    def switch_off(self) -> None:
        """Stop looking."""
        super().switch_off()
        self._inner.switch_off()

    def _take(self, data: bytes) -> None:
        self._inner.feed(data)
        self._keeper.take(data)

    def _finish(self) -> None:
        self._inner.end()
        self._keeper.end()


class ComposingScanner(SseScanner):
    """A stream whose events are put together. Of a large event the composer gets what a sieve leaves of it."""

    __slots__ = ("_composer", "_composing", "_limits", "_sift")

    def __init__(self, reader: Reader, recording: Recording, protocol: str, operation: str) -> None:
        composer = recording.open_stream(protocol, operation)
        assert composer is not None
        self._composer = composer
        self._composing = Composing(reader, composer)
        self._limits = recording.limits
        self._sift: Sift | None = None
        super().__init__(self._composing)

    def _finish(self) -> None:
        super()._finish()
        self._composer.end()

    def _item(self, name: bytes, data: bytes, part: Part) -> None:
        if part is Part.WHOLE or self._done:
            super()._item(name, data, part)
            return
        sift = self._sift
        if sift is None:
            limits = self._limits
            sift = Sift(limits.mark, string_bytes_max=limits.string_bytes, bytes_max=limits.body_bytes)
            self._sift = sift
        sift.feed(data)
        self._composing.deaf = True
        super()._item(name, data, part)
        self._composing.deaf = False
        if part is Part.LAST:
            self._sift = None
            try:
                document = orjson.loads(sift.out)
            except orjson.JSONDecodeError:  # it was too large
                return
            if isinstance(document, dict):
                self._composer.hear(name, document)
