"""Recorded content in files and object stores: what is there, who may read it, what becomes of it where that fails."""

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from observability import names
from observability.observer import store
from observability.observer import uploads as module
from observability.observer.store import Place, StoreError
from observability.observer.uploads import (
    BASE_PATH,
    FORMAT,
    HOOK,
    QUEUE_SIZE,
    Uploading,
    Uploads,
    open_uploads,
    uploading_of,
)
from tests.observability.records import record

SAID = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hï"}]}, {"role": "user", "parts": []}])
SYSTEM = json.dumps([{"type": "text", "content": "Be brief."}])
WAIT_S = 30.0
HOUR = "2023-11-14/22"
"""Of the record's end."""


class Dropped:
    """What was counted."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._changed = threading.Condition()

    def __call__(self, reason: str, count: int) -> None:
        with self._changed:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self._changed.notify_all()

    def wait(self, reason: str, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.counts.get(reason) == count, WAIT_S), self.counts


class Hindered(MemoryFileSystem):
    """A store that fails or hangs."""

    protocol = "hindered"
    store: ClassVar[dict[str, Any]] = {}
    failing = False
    going_on = threading.Event()
    asked = threading.Semaphore(0)
    opened = 0
    refusing = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self).opened += 1
        if type(self).refusing:
            raise ConnectionRefusedError("nobody is there")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if "/.sluiceway-" in path:
            return
        self.asked.release()
        assert self.going_on.wait(WAIT_S)
        if type(self).failing:
            raise OSError("no room for secret plans")
        super().pipe_file(path, value, mode, **kwargs)


class WithFolders(MemoryFileSystem):
    """A store in which a folder has to be made first."""

    protocol = "with-folders"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("with-folders://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if not self.isdir(path.rpartition("/")[0]):
            raise FileNotFoundError(path)
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture(autouse=True)
def hindered():
    fsspec.register_implementation("with-folders", WithFolders, clobber=True)
    WithFolders.store.clear()
    WithFolders.pseudo_dirs[:] = [""]
    fsspec.register_implementation("hindered", Hindered, clobber=True)
    Hindered.failing = False
    Hindered.store.clear()
    Hindered.going_on.set()
    Hindered.asked = threading.Semaphore(0)
    MemoryFileSystem.store.clear()
    yield
    Hindered.going_on.set()


@pytest.fixture
def dropped() -> Dropped:
    return Dropped()


def asked(request_id: str = "a" * 32, **fields: str):
    return record({names.GEN_AI_INPUT_MESSAGES: SAID, names.SLUICEWAY_REQUEST_ID: request_id, **fields})


def test_a_file_has_the_messages_and_the_record_says_where(tmp_path: Path, dropped):
    uploads = Uploads(Place(f"file://{tmp_path}/prompts"), dropped)
    one = asked()
    one["fields"] |= {names.GEN_AI_SYSTEM_INSTRUCTIONS: SYSTEM, names.SLUICEWAY_ERROR_BODY: '{"code":"x"}'}
    uploads.take([one, record()])
    uploads.close(WAIT_S)
    folder = tmp_path / "prompts" / HOUR
    stored = {path.name: json.loads(path.read_bytes()) for path in folder.iterdir()}
    stem = "a" * 32
    assert stored == {
        f"{stem}_inputs.json": json.loads(SAID),
        f"{stem}_system_instruction.json": json.loads(SYSTEM),
        f"{stem}_error.json": {"code": "x"},
    }
    assert one["fields"][names.GEN_AI_INPUT_MESSAGES_REF] == f"file://{folder}/{stem}_inputs.json"
    assert one["fields"][names.GEN_AI_SYSTEM_INSTRUCTIONS_REF].endswith("_system_instruction.json")
    assert one["fields"][names.SLUICEWAY_ERROR_BODY_REF].endswith("_error.json")
    assert names.GEN_AI_OUTPUT_MESSAGES_REF not in one["fields"]
    assert one["fields"][names.GEN_AI_INPUT_MESSAGES] == SAID  # for spans
    assert dropped.counts == {}


def test_only_the_owner_may_read(tmp_path: Path, dropped):
    before = os.umask(0)
    try:
        uploads = Uploads(Place(str(tmp_path / "above" / "prompts")), dropped)
        uploads.take([asked()])
        uploads.close(WAIT_S)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_whole_is_not_there(tmp_path: Path, dropped, monkeypatch):
    uploads = Uploads(Place(str(tmp_path)), dropped, writers=1)
    seen: list[list[str]] = []

    def replace(new: Path, path: Path) -> None:
        seen.append([found.name for found in tmp_path.rglob("*") if found.is_file()])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    uploads.take([asked()])
    dropped.wait(module.FAILED, 1)
    uploads.close(WAIT_S)
    assert seen[-1] == [f".{'a' * 32}_inputs.json.new"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("lines", "ending", "expected"),
    [
        (False, "json", [json.loads(SAID)]),
        (True, "jsonl", [{**message, "index": number} for number, message in enumerate(json.loads(SAID))]),
    ],
)
def test_any_file_system_and_both_forms(dropped, lines, ending, expected):
    uploads = Uploads(Place("memory://prompts"), dropped, lines=lines)
    one = asked()
    uploads.take([one])
    uploads.close(WAIT_S)
    ref = one["fields"][names.GEN_AI_INPUT_MESSAGES_REF]
    assert ref == f"memory://prompts/{HOUR}/{'a' * 32}_inputs.{ending}"
    with fsspec.open(ref, "rb") as file:
        assert [json.loads(line) for line in file.read().splitlines()] == expected
    assert len(MemoryFileSystem.store) == 1, "the probe is gone"


@pytest.mark.parametrize("there", [True, False])
def test_folders_are_made_but_no_bucket(dropped, there):
    if there:
        fsspec.filesystem("with-folders").makedirs("/prompts")
    uploads = Uploads(Place("with-folders://prompts"), dropped)
    uploads.take([asked()])
    uploads.close(WAIT_S)
    assert bool([path for path in WithFolders.store if "a" * 32 in path]) is there
    assert dropped.counts == ({} if there else {module.FAILED: 1})


@pytest.mark.parametrize(("after_s", "again"), [(0.0, 1), (1000.0, 0)])
def test_a_store_that_fails_is_counted_and_may_come_back(dropped, capsys, monkeypatch, after_s, again):
    monkeypatch.setattr(store, "REOPEN_AFTER_S", after_s)
    Hindered.failing = True
    uploads = Uploads(Place("hindered://x"), dropped, writers=1)
    uploads.take([asked(f"{number:032x}") for number in range(3)])
    dropped.wait(module.FAILED, 3)
    Hindered.failing = False
    opened = Hindered.opened
    uploads.take([asked()])
    uploads.close(WAIT_S)
    assert Hindered.opened == opened + again, "a connection that failed is not used for ever, nor made all the time"
    assert [path for path in Hindered.store if "a" * 32 in path]
    assert dropped.counts == {module.FAILED: 3}
    assert capsys.readouterr().out.count("content_not_stored") == 1  # not a line for each


@pytest.mark.parametrize("limit", ["requests", "bytes"])
def test_a_slow_store_fills_the_queue_and_what_is_refused_has_no_reference(dropped, limit):
    Hindered.going_on.clear()
    limits = {"requests_max": 3} if limit == "requests" else {"bytes_max": 3 * len(SAID.encode()) + 1}
    uploads = Uploads(Place("hindered://x"), dropped, writers=1, **limits)
    records = [asked(f"{number:032x}") for number in range(5)]
    uploads.take(records[:1])
    assert Hindered.asked.acquire(timeout=WAIT_S)  # what is being written counts too
    uploads.take(records[1:])
    assert [names.GEN_AI_INPUT_MESSAGES_REF in one["fields"] for one in records] == [True] * 3 + [False] * 2
    assert [one["fields"].get(names.SLUICEWAY_CONTENT_DROPPED) for one in records[2:]] == [
        None,
        *["upload_queue_full"] * 2,
    ]
    assert dropped.counts == {module.QUEUE_FULL: 2}
    Hindered.going_on.set()
    for _ in range(2):
        assert Hindered.asked.acquire(timeout=WAIT_S)
    later = asked()
    while names.GEN_AI_INPUT_MESSAGES_REF not in later["fields"]:  # there is room as soon as something is written
        uploads.take([later])
    uploads.close(WAIT_S)
    assert len(Hindered.store) == 4


@pytest.mark.parametrize(("after_s", "asked_for"), [(0.0, 3), (1000.0, 1)])
def test_one_that_cannot_be_opened_is_not_asked_all_the_time(dropped, monkeypatch, after_s, asked_for):
    monkeypatch.setattr(store, "REOPEN_AFTER_S", after_s)
    monkeypatch.setattr(Hindered, "opened", 0)
    monkeypatch.setattr(Hindered, "refusing", True)
    uploads = Uploads(Place("hindered://x"), dropped, writers=1)
    uploads.take([asked(f"{number:032x}") for number in range(2)])
    dropped.wait(module.FAILED, 2)
    uploads.close(WAIT_S)
    assert Hindered.opened == asked_for  # the probe among them


def test_the_end_waits_for_so_long_and_counts_the_rest(dropped):
    Hindered.going_on.clear()
    uploads = Uploads(Place("hindered://x"), dropped, writers=2)
    uploads.take([asked(f"{number:032x}") for number in range(5)])
    for _ in range(2):
        assert Hindered.asked.acquire(timeout=WAIT_S)
    uploads.close(0.01)
    assert dropped.counts == {module.SHUTDOWN: 5}
    late = asked()
    uploads.take([late])
    assert late["fields"][names.SLUICEWAY_CONTENT_DROPPED] == module.SHUTDOWN
    Hindered.going_on.set()


def test_a_record_that_is_odd_costs_only_itself(dropped):
    uploads = Uploads(Place("memory://prompts"), dropped)
    good, odd = asked(), asked(**{names.SLUICEWAY_REQUEST_ID: None})  # type: ignore[arg-type]
    uploads.take([odd, good])
    uploads.close(WAIT_S)
    assert names.GEN_AI_INPUT_MESSAGES_REF in good["fields"]
    assert dropped.counts == {module.FAILED: 1}


class TestVariables:
    """What the environment may ask for."""

    def test_nothing(self):
        assert uploading_of({}) == uploading_of({HOOK: " "}) == Uploading()
        assert open_uploads(Uploading(), Dropped()) is None

    def test_all(self):
        found = uploading_of({HOOK: "Upload", BASE_PATH: "s3://b/p", FORMAT: "JSONL", QUEUE_SIZE: "7"})
        assert found == Uploading(True, "s3://b/p", True, 7)

    def test_what_is_not_understood_is_complained_about(self):
        assert "upload would be right" in uploading_of({HOOK: "mine"}).complaints[0]
        assert not uploading_of({HOOK: "mine"}).wanted
        found = uploading_of({HOOK: "upload", FORMAT: "xml", QUEUE_SIZE: "-1"})
        assert (found.lines, found.requests_max, len(found.complaints)) == (False, module.REQUESTS_MAX, 2)

    @pytest.mark.parametrize(
        ("base", "reason"),
        [
            ("", "it is not set"),
            ("nothing-like-it://x", "Protocol not known"),
            ("s3://bucket/folder", "s3fs"),
            ("simplecache::s3://bucket", "a chain"),
            ("odd://bucket", "AttributeError"),
        ],
    )
    def test_what_can_never_be_written_to_is_said_at_the_start_and_nothing_is_stored(self, base, reason, capsys):
        fsspec.register_implementation("odd", "json.NoSuchFileSystem", clobber=True)
        dropped = Dropped()
        uploads = open_uploads(Uploading(True, base), dropped)
        said = capsys.readouterr().out
        assert BASE_PATH in said
        assert reason in said
        assert uploads is not None
        one = asked()
        uploads.take([one])
        uploads.close(WAIT_S)
        assert one["fields"][names.SLUICEWAY_CONTENT_DROPPED] == module.OFF
        assert dropped.counts == {module.OFF: 1}

    def test_without_fsspec_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
        with pytest.raises(StoreError, match="pip install fsspec"):
            Place("/tmp/x")

    def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(self, tmp_path: Path, capsys):
        (tmp_path / "file").write_bytes(b"")
        uploads = open_uploads(Uploading(True, str(tmp_path / "file" / "prompts")), Dropped())
        assert uploads is not None
        uploads.close(WAIT_S)
        for thread in threading.enumerate():
            if thread.name == "uploads-0":
                thread.join(WAIT_S)
        said = capsys.readouterr().out
        assert "content_not_stored" in said
        assert "NotADirectoryError" in said


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("memory://", "memory://"),
        ("memory://a/b/", "memory://a/b/"),
        ("file:///a b", "file:///a%20b/"),
        ("/", "file:///"),
        ("sftp://me:secret@host/x", "sftp://me@host/x/"),
    ],
)
def test_where_references_begin(base, url):
    if base.startswith("sftp"):
        fsspec.register_implementation("sftp", MemoryFileSystem, clobber=True)  # paramiko is not there
    assert Place(base).url == url
