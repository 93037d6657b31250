"""Reload: control's eye on the configuration file, and the one place where a running gateway gets another generation.

A changed file is noticed by its stamp (time, size, inode, so that a ConfigMap's swapped link counts), looked at every
LOOK_S; it is read once its stamp has stood still from one look to the next, because an editor that writes in place must
not be met half way: the first half of a file can be a good file. SIGHUP reads at once, whatever the stamp.

What is read is checked as at a start, on a thread. If anything is wrong, or differs in what a running gateway cannot
change (`proxy.config.change`), nothing changes at all: the log and /readyz say what is wrong, once for each content.
Else it gets the next number, is kept as the last good file (`proxy.state`) and announced to the workers (`proxy.link`).
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from observability.log import get_logger
from proxy.config.advice import advice
from proxy.config.change import lasting_changes
from proxy.config.complaints import Complaint, ConfigError
from proxy.config.file import read
from proxy.config.model import Document
from proxy.config.seal import plain_of, seal_of
from proxy.link import offer_line, packed
from proxy.state import Kept, StateError, StateFolder

LOOK_S: Final = 0.25
"""Three system calls. A change is in force within twice this, reading and preparing aside."""
AGAIN_S: Final = 5.0
"""A file that was refused is read again this often: what it refers to may be mended, and its stamp does not tell."""
READ_S: Final = 30.0
"""For reading and checking: ten times what the largest file takes. A secret may lie in a pipe that nobody fills."""

_log = get_logger(__name__)

_T = TypeVar("_T")
_Stamp = tuple[int, int, int]
_NEVER: Final[_Stamp] = (-1, -1, -1)


class Generation(NamedTuple):
    """What is announced."""

    number: int
    seal: str
    document: Document
    line: bytes
    """As the workers are sent it."""


class Reload:
    """Follows one file. `kept` is in force, and `document` what this process finds it to say, with `overrides`, the
    options of the command line that go before the file, and seals made with `seal_key`; `announce` is given each new
    generation."""

    def __init__(
        self,
        file: Path,
        state: StateFolder,
        kept: Kept,
        document: Document,
        overrides: Mapping[str, Any],
        seal_key: str,
        announce: Callable[[Generation], None],
    ) -> None:
        self.document = document
        self.refused: Sequence[Complaint] = ()
        """What is wrong with the file as it stands; empty: it is in force."""
        self._file = file
        self._state = state
        self._kept = kept
        self._overrides = overrides
        self._seal_key = seal_key
        self._announce = announce
        self._asked = asyncio.Event()
        self._judged: _Stamp | None = _NEVER
        self._seen: _Stamp | None = None
        self._reading: asyncio.Future[Any] | None = None
        self._again_at = 0.0

    def ask(self) -> None:
        """Read the file now (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_S)

    async def look(self) -> None:
        """Read the file if that was asked for, or if it has changed and stood still since the last look."""
        stamp = _stamp(self._file)
        asked = self._asked.is_set()
        again = bool(self.refused) and asyncio.get_running_loop().time() >= self._again_at
        if asked or ((again or stamp != self._judged) and stamp == self._seen):
            self._asked.clear()
            first, before, self._judged = self._judged == _NEVER, self._judged, stamp
            tell = asked or stamp != before
            try:
                text, document, seal = await self._read()
                if _stamp(self._file) != stamp:  # it was written to meanwhile: whatever was read, another look follows
                    self._judged = before
                    if asked:
                        self._asked.set()
                else:
                    await self._judge(text, document, seal, tell=asked or not first)
            except ConfigError as error:
                self._refuse(error.complaints, tell=tell)
            except StateError as error:
                wrong = str(error).removeprefix("state: ")
                self._refuse([Complaint("state", wrong, "make room there, then send SIGHUP")], tell=tell)
            except Exception as error:  # noqa: BLE001 - whatever it is, what is in force stays, and the next look comes
                if tell:
                    _log.exception("configuration_failed", file=str(self._file))
                wrong = f"it could not be read ({type(error).__name__}): the log says where"
                right = "this is a fault of the gateway's: report it"
                self._refuse([Complaint(str(self._file), wrong, right)], tell=tell)
        self._seen = stamp

    async def _read(self) -> tuple[str, Document, str]:
        """Text, document and seal, found on a thread that nobody waits for in the end."""
        if self._reading is not None and not self._reading.done():
            wrong = "an earlier look at it hangs, maybe at a secret that lies in a pipe"
            raise ConfigError([Complaint(str(self._file), wrong, "let it go on, then send SIGHUP")])
        self._reading = _aside(self._read_now)
        try:
            return await asyncio.wait_for(asyncio.shield(self._reading), READ_S)
        except TimeoutError:
            wrong = f"reading and checking it took longer than {READ_S:g} s"
            right = "is a secret's file a pipe? mend that, then send SIGHUP"
            raise ConfigError([Complaint(str(self._file), wrong, right)]) from None

    def _read_now(self) -> tuple[str, Document, str]:
        text, document = read(self._file, os.environ, self._overrides, starting=True, again=True)
        return text, document, seal_of(document, self._seal_key)

    async def _judge(self, text: str, document: Document, seal: str, *, tell: bool) -> None:
        """Raises ConfigError and StateError; then nothing has changed."""
        if lasting := lasting_changes(self.document, document):
            raise ConfigError(lasting)
        if (text, seal) == (self._kept.text, self._kept.seal):
            if tell:  # at its first look control finds what the gateway began with
                _log.info("configuration_unchanged", generation=self._kept.generation, file=str(self._file))
            self.refused = ()
            return
        plain = plain_of(document)
        try:
            package = packed(plain)
        except ValueError as error:
            raise ConfigError([Complaint(str(self._file), str(error), "make it smaller")]) from None
        adopted = await _aside(lambda: self._state.adopt(text, seal, anew=text == self._kept.text))
        if document.prices is not None:
            await _aside(lambda: self._state.keep_prices(plain["prices"]))
        self._kept, self.document, self.refused = Kept(adopted.generation, seal, text), document, ()
        line = offer_line(adopted.generation, seal, package)
        self._announce(Generation(adopted.generation, seal, document, line))
        _log.info("configuration_adopted", generation=adopted.generation, file=str(self._file))
        for warning in advice(document):
            _log.warning("configuration", path=warning.path, wrong=warning.wrong, hint=warning.right)

    def _refuse(self, complaints: Sequence[Complaint], *, tell: bool) -> None:
        """`tell`: also where that was said before."""
        self._again_at = asyncio.get_running_loop().time() + AGAIN_S
        if list(complaints) == list(self.refused) and not tell:
            return
        self.refused = complaints
        number = self._kept.generation
        hint = f"generation {number} stays in force; mend this, the file is read again when it changes, or on SIGHUP"
        said = [str(complaint) for complaint in complaints]
        _log.error("configuration_refused", generation=number, file=str(self._file), complaints=said, hint=hint)


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _aside(function: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Its result, from a thread that does not hold up the end of the process: asyncio's own would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = function(), None
        except BaseException as raised:  # noqa: BLE001 - whoever awaits it has it
            result, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="configuration", daemon=True).start()
    return future
