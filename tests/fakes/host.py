"""A running supervisor (`supervised.py`) with children that only talk (`child.py`), as a test sees it: by its lines."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

SUPERVISED = Path(__file__).with_name("supervised.py")
PATIENCE_S = 30.0
"""How long a line may take before the test gives up: ten times what a loaded machine needs."""


class Host:
    """A running supervisor and the lines that it and its children wrote so far."""

    def __init__(self, folder: Path, wish: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, str(SUPERVISED), str(folder), json.dumps(wish)], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self._pipe = self.process.stdout.fileno()
        self._rest = b""
        self.lines: list[dict[str, Any]] = []

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """The first line, read already or to come, that has these values; children's have `child`, `verb`, `what`."""
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if wanted.items() <= line.items():
                    return line
            seen = len(self.lines)
            assert self.read(), f"ended without {wanted}: {self.lines}"

    def wait_for_start(self, times: int, child: str) -> None:
        """Read on until this child was started so many times."""
        while len(self.of(child)) < times:
            assert self.read(), f"ended too early: {self.lines}"

    def end(self) -> int:
        """Read on until every process has closed its stdout; the exit code."""
        while self.read():
            pass
        return self.process.wait(PATIENCE_S)

    def of(self, child: str, verb: str = "started") -> list[str]:
        """What a child said with one verb, in order."""
        return [line["what"] for line in self.lines if line.get("child") == child and line.get("verb") == verb]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of the supervisor's log."""
        return [line for line in self.lines if line.get("event") == event]

    def index(self, **wanted: Any) -> int:
        """Where the first line with these values stands."""
        return next(number for number, line in enumerate(self.lines) if wanted.items() <= line.items())

    def read(self) -> bool:
        """Take in what comes next. False at the end."""
        ready, _, _ = select.select([self._pipe], [], [], PATIENCE_S)
        assert ready, f"nothing more was said in {PATIENCE_S} s: {self.lines}"
        data = os.read(self._pipe, 65536)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for text in whole:
            if text.startswith(b"# "):
                child, verb, what = text.decode()[2:].split(" ", 2)
                self.lines.append({"child": child, "verb": verb, "what": what})
            else:
                self.lines.append(json.loads(text))
        return bool(data)


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path
