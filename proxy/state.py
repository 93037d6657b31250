"""The folder of `state`: what a gateway remembers from one start to the next.

`last-good.yaml` holds the configuration in force: a first line with its number and its seal (proxy.config.seal), then
the text as written, with `${NAME}` and `file:…` unresolved, so that no secret is copied that was not in the file
already. They are one file, so that a process that starts in the moment of a change never reads the one without the
other. `generation` holds
the number too, in case the copy gets lost: it only grows. It is written first: if the machine stops between the two
writes, the next start skips a number, where the other order would give one number to two texts.

`last-good-prices.json` holds what the file of `prices` said: people write that one too, and half an entry in it must
not keep control from starting again.

One gateway at a time uses a folder. Its supervisor holds the lock and adopts what the gateway starts with; from then on
only its control process, which dies with the supervisor, adopts anything.
"""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

GENERATION_MAX = 2**53 - 1
"""JSON readers that have only doubles tell numbers apart up to here; a change a millisecond takes 285,000 years."""

_PRICES: Final = "last-good-prices.json"
_FIRST_LINE: Final = re.compile(rb"# generation ([0-9]{1,16}) of this gateway, sealed ([0-9a-f]{0,64}): do not edit\n")


class StateError(Exception):
    """The folder cannot be used. The text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A configuration text that is in force from now on."""

    generation: int
    path: Path
    """The kept copy, absolute."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What `last-good.yaml` holds."""

    generation: int
    seal: str
    text: str


def read_kept(path: Path) -> Kept:
    """Read the kept copy. Raises StateError where it is missing or damaged."""
    try:
        content = path.read_bytes()
        first = _FIRST_LINE.match(content)
        if first is not None:
            return Kept(int(first[1]), first[2].decode(), content[first.end() :].decode())
    except OSError as error:
        raise StateError(f"state: {path} cannot be read ({error.strerror}): restart the gateway") from None
    except UnicodeDecodeError:
        pass
    raise StateError(f"state: {path} is damaged: restart the gateway")


def kept_prices(folder: Path) -> dict[str, Any] | None:
    """What `keep_prices` has written; None where it is missing or damaged."""
    try:
        prices = orjson.loads((folder / _PRICES).read_bytes())
    except (OSError, ValueError):
        return None
    return prices if isinstance(prices, dict) else None


class StateFolder:
    """The folder. With `lock` a context manager: the lock ends with it, or with the process."""

    def __init__(self, folder: Path, *, lock: bool = True) -> None:
        """Make the folder where it is missing, and lock it; not where our own supervisor holds the lock. Raises
        StateError."""
        self._folder = folder.absolute()
        self._lock = -1
        if lock:
            self._take_lock(folder)

    def _take_lock(self, folder: Path) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"state: cannot write in {folder} ({error.strerror}): choose another folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateError(
                f"state: another gateway runs with {folder}: give this one a `state` of its own, in another folder"
            ) from None

    def __enter__(self) -> "StateFolder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def adopt(self, text: str, seal: str, *, anew: bool = False) -> Adopted:
        """Number a valid configuration text and keep it. The same text as last time keeps its number.

        `anew`: it does not, since what it refers to has changed. Raises StateError; then what was kept still is.
        """
        path = self._folder / "last-good.yaml"
        counter = self._folder / "generation"
        try:
            kept = self._kept(path)
            generation = max(self._number(counter), kept.generation if kept else 0)
            if anew or kept is None or (kept.generation, kept.text) != (generation, text):
                generation += 1
                self._replace(counter, f"{generation}\n")
            if kept != Kept(generation, seal, text):
                self._replace(path, f"# generation {generation} of this gateway, sealed {seal}: do not edit\n{text}")
        except OSError as error:
            raise StateError(f"state: cannot write in {self._folder} ({error.strerror})") from None
        return Adopted(generation, path)

    def keep_prices(self, prices: object) -> None:
        """What the file of `prices` says of a document that is adopted; where there is no room for it, not."""
        try:
            self._replace(self._folder / _PRICES, orjson.dumps(prices).decode())
        except OSError:
            return

    @staticmethod
    def _kept(path: Path) -> Kept | None:
        try:
            return read_kept(path)
        except StateError:  # no reason not to start
            return None

    @staticmethod
    def _number(counter: Path) -> int:
        if not counter.exists():
            return 0
        text = counter.read_text(encoding="utf-8", errors="replace").strip()
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(GENERATION_MAX))
        if not digits or int(text) >= GENERATION_MAX:
            hint = "write a larger one than was in force, below 2**53, or remove it"
            raise StateError(f"state: {counter} holds no number of a generation: {hint}")
        return int(text)

    def _replace(self, path: Path, text: str) -> None:
        """Either the old content or the new one is there, whatever happens; readable by the owner alone."""
        fresh = path.with_name(path.name + ".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError:  # it is in place for all who look: to say that it is not would be worse than a lost rename
            pass
        finally:
            os.close(folder)
