"""Reload: control's eye on the configuration file, and the one place where a running gateway gets another generation.

A changed file is noticed by its stamp (time, size, inode, so that a ConfigMap's swapped link counts), looked at every
LOOK_S; it is read once its stamp has stood still from one look to the next, because an editor that writes in place must
not be met half way: the first half of a file can be a good file. SIGHUP reads at once, whatever the stamp.

What is read is checked as at a start, on a thread. If anything is wrong, or differs in what a running gateway cannot
change (`proxy.config.change`), nothing changes at all: the log and /readyz say what is wrong, once for each content.
Else it gets the next number, is kept as the last good file (`proxy.state`) and announced to the workers (`proxy.link`).
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from observability.log import get_logger
from proxy.config.advice import advice
from proxy.config.change import lasting_changes, named_files
from proxy.config.complaints import Complaint, ConfigError
from proxy.config.file import read
from proxy.config.model import Document
from proxy.state import Kept, StateError, StateFolder

LOOK_S: Final = 0.25
"""Three system calls. A change is in force within twice this, reading and preparing aside."""

_log = get_logger(__name__)

_Stamp = tuple[int, int, int]
_NEVER: Final[_Stamp] = (-1, -1, -1)


class Reload:
    """Follows one file. `kept` and `document`: what is in force; `overrides`: the options of the command line that go
    before the file; `announce` is given each new generation."""

    def __init__(
        self,
        file: Path,
        state: StateFolder,
        kept: Kept,
        document: Document,
        overrides: Mapping[str, Any],
        announce: Callable[[int, Document], None],
    ) -> None:
        self.generation = kept.generation
        self.document = document
        self.refused: Sequence[Complaint] = ()
        """What is wrong with the file as it stands; empty: it is in force."""
        self._file = file
        self._state = state
        self._text = kept.text
        self._overrides = overrides
        self._announce = announce
        self._asked = asyncio.Event()
        self._judged: _Stamp | None = _NEVER
        self._seen: _Stamp | None = None
        self._files = _stamps(named_files(document))

    def ask(self) -> None:
        """Read the file now (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            try:
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Read the file if that was asked for, or if it has changed and stood still since the last look."""
        stamp = _stamp(self._file)
        if self._asked.is_set():
            self._asked.clear()
            await self._judge(stamp, asked=True)
        elif stamp != self._judged and stamp == self._seen:
            await self._judge(stamp, asked=False)
        self._seen = stamp

    async def _judge(self, stamp: _Stamp | None, *, asked: bool) -> None:
        first, self._judged = self._judged == _NEVER, stamp
        try:
            text, document = await asyncio.to_thread(read, self._file, os.environ, self._overrides, starting=True)
            if lasting := lasting_changes(self.document, document):
                raise ConfigError(lasting)
            files = _stamps(named_files(document))
            if (text, document, files) == (self._text, self.document, self._files):
                if asked or not first:  # at its first look control finds what the gateway began with
                    _log.info("configuration_unchanged", generation=self.generation, file=str(self._file))
                self.refused = ()
                return
            adopted = await asyncio.to_thread(self._state.adopt, text, anew=text == self._text)
        except ConfigError as error:
            self._refuse(error.complaints)
            return
        except StateError as error:
            self._refuse([Complaint("state", str(error), "make room there, then send SIGHUP")])
            return
        self._text, self.document, self._files, self.generation = text, document, files, adopted.generation
        self.refused = ()
        _log.info("configuration_adopted", generation=adopted.generation, file=str(self._file))
        for warning in advice(document):
            _log.warning("configuration", path=warning.path, wrong=warning.wrong, hint=warning.right)
        self._announce(adopted.generation, document)

    def _refuse(self, complaints: Sequence[Complaint]) -> None:
        self.refused = complaints
        hint = f"generation {self.generation} stays in force; mend the file, it is read again when it changes"
        said = [str(complaint) for complaint in complaints]
        _log.error(
            "configuration_refused", generation=self.generation, file=str(self._file), complaints=said, hint=hint
        )


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _stamps(paths: Sequence[str]) -> list[_Stamp | None]:
    return [_stamp(Path(path)) for path in paths]
