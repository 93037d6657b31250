"""The folder of `state`: what a gateway remembers from one start to the next.

`generation` holds the number of the configuration in force, `last-good.yaml` its text as written, with `${NAME}` and
`file:…` unresolved, so that no secret is copied that was not in the file already. A start with another text gets the
next number. The number is written first: if the machine stops between the two writes, the next start skips a number,
where the other order would give one number to two texts.

One gateway at a time uses a folder, enforced with a lock: restarted processes read `last-good.yaml`, and it must not be
somebody else's.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

GENERATION_MAX = 2**53 - 1
"""JSON readers that have only doubles tell numbers apart up to here; a change a millisecond takes 285,000 years."""


class StateError(Exception):
    """The folder cannot be used. The text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A configuration text that is in force from now on."""

    generation: int
    path: Path
    """The kept copy, absolute."""


class StateFolder:
    """The folder, locked. A context manager; the lock ends with it, or with the process."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing, and lock it. Raises StateError."""
        self._folder = folder.absolute()
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

    def adopt(self, text: str) -> Adopted:
        """Number a valid configuration text and keep it. The same text as last time keeps its number."""
        kept = self._folder / "last-good.yaml"
        counter = self._folder / "generation"
        try:
            generation = self._number(counter)
            # as bytes: a copy that is damaged is another text, no reason not to start
            if generation == 0 or not kept.exists() or kept.read_bytes() != text.encode():
                generation += 1
                self._replace(counter, f"{generation}\n")
                self._replace(kept, text)
        except OSError as error:
            raise StateError(f"state: cannot write in {self._folder} ({error.strerror})") from None
        return Adopted(generation, kept)

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
        finally:
            os.close(folder)
