"""The runtime directory: held while its gateway runs, and removed by the next start where nobody holds it."""

import fcntl
import os
from pathlib import Path

import pytest

from proxy.runtime import PREFIX, remove_abandoned, runtime_directory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def abandoned(folder: Path, name: str, *files: str, mode: int = 0o700) -> Path:
    path = folder / f"{PREFIX}{name}"
    (path / "metrics").mkdir(parents=True)
    for file in ("board", "lines.lock", "observer-0.sock", "draining", "metrics/counter_7.db", *files):
        (path / file).touch()
    path.chmod(mode)
    return path


def test_a_running_gateway_holds_its_directory(tmp_path: Path) -> None:
    """Cleaners that respect locks (systemd-tmpfiles) take this same lock before they remove a folder."""
    with runtime_directory() as runtime:
        folder = os.open(runtime, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        with runtime_directory() as second:
            assert remove_abandoned(second) == []
            assert runtime.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_supervisor_left_is_removed(tmp_path: Path) -> None:
    left = abandoned(tmp_path, "left")
    with runtime_directory() as runtime:
        assert remove_abandoned(runtime) == [left]
        assert list(tmp_path.iterdir()) == [runtime]


def test_what_may_be_somebody_elses_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    abandoned(tmp_path, "notes", "notes.txt")
    abandoned(tmp_path, "shared", mode=0o755)
    before = set(tmp_path.rglob("*"))
    with runtime_directory() as runtime:
        assert remove_abandoned(runtime) == []
        assert {path for path in tmp_path.rglob("*") if runtime not in (path, path.parent)} == before
