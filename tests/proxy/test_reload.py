"""Control's eye on the file: what it takes for a change, and when it reads."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config import file as config_file
from proxy.config.change import lasting_changes
from proxy.config.file import FILE_BYTES_MAX
from proxy.config.model import Document
from proxy.config.seal import seal_of
from proxy.reload import Generation, Reload
from proxy.state import StateFolder, read_kept

TEXT = """
services: [{{name: sim, provider: openai, base_url: "http://127.0.0.1:1", api_keys: [sk], idle_timeout_ms: {number}}}]
"""


class Followed:
    """A file, what follows it, and what came of it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.file = folder / "sluiceway.yaml"
        self.announced: asyncio.Queue[Generation] = asyncio.Queue()
        text, document = config_file.read(self.file, os.environ, options)
        self._state = StateFolder(folder / "state")
        adopted = self._state.adopt(text, seal_of(document, "key"))
        self.kept = adopted.path
        state = StateFolder(folder / "state", lock=False)
        kept = read_kept(self.kept)
        self.reload = Reload(self.file, state, kept, document, options, "key", self.announced.put_nowait)

    async def next(self) -> tuple[int, int]:
        """Number of the next generation, and of what it says."""
        generation = await asyncio.wait_for(self.announced.get(), 10)
        return generation.number, generation.document.services[0].idle_timeout_ms

    @property
    def wrong(self) -> str:
        """What is wrong with the file."""
        return " ".join(str(complaint) for complaint in self.reload.refused)


def text(number: int) -> str:
    return TEXT.format(number=number)


@asynccontextmanager
async def following(folder: Path, **options: object) -> AsyncIterator[Followed]:
    followed = Followed(folder, **options)
    task = asyncio.create_task(followed.reload.run())
    try:
        yield followed
    finally:
        task.cancel()
        followed._state.__exit__()


async def test_a_file_is_read_when_it_stands_still(tmp_path: Path) -> None:
    """Each state of a file that is being written could be a good configuration."""
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    for number in range(2, 6):
        file.write_text(text(number))
        await followed.reload.look()
    assert followed.announced.empty()
    await followed.reload.look()
    assert await followed.next() == (2, 5)
    assert read_kept(followed.kept).text == text(5)
    await followed.reload.look()
    assert followed.announced.empty()


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link through a folder that is swapped."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "sluiceway.yaml").write_text(text(number))
        os.utime(tmp_path / f"v{number}" / "sluiceway.yaml", (0, 0))
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "sluiceway.yaml").symlink_to("data/sluiceway.yaml")
    async with following(tmp_path) as followed:
        (tmp_path / "fresh").symlink_to("v2")
        (tmp_path / "fresh").rename(tmp_path / "data")
        assert await followed.next() == (2, 2)


async def test_sighup_reads_at_once_and_numbers_only_what_is_new(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    file.write_text(text(2))
    followed.reload.ask()
    await followed.reload.look()
    assert followed.announced.get_nowait().number == 2
    followed.reload.ask()
    await followed.reload.look()
    assert followed.announced.empty()
    assert read_kept(followed.kept).generation == 2
    await followed.reload.look()
    file.write_text(text(3))
    await followed.reload.look()
    assert followed.announced.empty()  # nobody asked, and it has not stood still


async def test_a_file_that_is_written_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    file.write_text(text(2))

    def read_and_write(*args: Any, **options: Any) -> tuple[str, Document]:
        found = config_file.read(*args, **options)
        file.write_text(text(3000))
        monkeypatch.undo()
        return found

    monkeypatch.setattr("proxy.reload.read", read_and_write)
    followed.reload.ask()
    await followed.reload.look()
    assert followed.announced.empty()
    await followed.reload.look()
    assert (await followed.next()) == (2, 3000)


async def test_the_same_text_that_means_another_thing_is_another_generation(tmp_path: Path) -> None:
    file, secret = tmp_path / "sluiceway.yaml", tmp_path / "secret"
    file.write_text(text(1) + f'consumers: [{{name: c, keys: ["file:{secret}"]}}]')
    secret.write_text("first")
    followed = Followed(tmp_path)
    before = read_kept(followed.kept)
    assert "first" not in followed.kept.read_text()
    secret.write_text("second")
    followed.reload.ask()
    await followed.reload.look()
    generation = followed.announced.get_nowait()
    assert (generation.number, generation.document.consumers[0].keys) == (2, ["second"])
    after = read_kept(followed.kept)
    assert (after.text, after.generation) == (before.text, 2)
    assert after.seal != before.seal


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"limits: {max_request_bytes: 0x" + b"f" * 5000 + b"}", "the number is too large"),
        (b'consumers: [{name: c, keys: ["file:/\\0x"]}]', "is not text"),
        (b'consumers: [{name: c, keys: [k], labels: {x: "\\ud800"}}]', "half of a character"),
        (b"\xff", "it is not UTF-8 text"),
        (b"#" * (FILE_BYTES_MAX + 1), "it has more than 16 MiB"),
    ],
    ids=["number", "nul", "surrogate", "latin-1", "large"],
)
async def test_whatever_stands_in_the_file_the_next_one_is_read(tmp_path: Path, content: bytes, wrong: str) -> None:
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    file.write_bytes(content)
    followed.reload.ask()
    await followed.reload.look()
    assert wrong in followed.wrong
    file.write_text(text(2))
    followed.reload.ask()
    await followed.reload.look()
    assert followed.wrong == ""
    assert await followed.next() == (2, 2)


async def test_a_fault_of_our_own_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("proxy.reload.read", lambda *_, **__: 1 // 0)
        followed.reload.ask()
        await followed.reload.look()
        assert "ZeroDivisionError" in followed.wrong
    file.write_text(text(2))
    followed.reload.ask()
    await followed.reload.look()
    assert await followed.next() == (2, 2)


async def test_a_pipe_in_the_files_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.yaml"
    file.write_text(text(1))
    followed = Followed(tmp_path)
    file.unlink()
    os.mkfifo(file)
    followed.reload.ask()
    await followed.reload.look()
    assert "it is no file that can be read again" in followed.wrong


async def test_a_secret_in_a_pipe_that_nobody_fills_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.reload.READ_S", 0.05)
    file, pipe = tmp_path / "sluiceway.yaml", tmp_path / "pipe"
    file.write_text(text(1))
    os.mkfifo(pipe)
    followed = Followed(tmp_path)
    file.write_text(text(1) + f'consumers: [{{name: c, keys: ["file:{pipe}"]}}]')
    followed.reload.ask()
    await followed.reload.look()
    assert "is a secret's file a pipe?" in followed.wrong
    followed.reload.ask()
    await followed.reload.look()
    assert "an earlier look at it hangs" in followed.wrong  # and no second thread hangs with it
    pipe.write_text("filled")


async def test_options_of_the_command_line_go_before_the_file(tmp_path: Path) -> None:
    """An open Model API off loopback is refused at a start, so it is at a reload, wherever the address comes from."""
    file = tmp_path / "sluiceway.yaml"
    api = "model_apis: [{name: a, scenario: text, protocols: [openai], auth: %s, routing: {single: {service: sim}}}]"
    file.write_text(text(1) + api % "passthrough")
    async with following(tmp_path, listen="0.0.0.0:8080") as followed:
        file.write_text(text(1) + api % "open")
        followed.reload.ask()
        async with asyncio.timeout(10):
            while not followed.reload.refused:
                await asyncio.sleep(0)
        assert "anybody who reaches 0.0.0.0:8080" in str(followed.reload.refused[0])
        assert followed.reload.document.listen == "0.0.0.0:8080"
        assert followed.announced.empty()


@pytest.mark.parametrize(
    ("changed", "path", "wrong"),
    [
        ({"listen": "127.0.0.1:1"}, "listen", "'127.0.0.1:8080' cannot become '127.0.0.1:1' while the gateway runs"),
        ({"workers": 3}, "workers", "'auto' cannot become 3 while the gateway runs"),
        ({"observers": 3}, "observers", "'auto' cannot become 3 while the gateway runs"),
        ({"admin": {"listen": "127.0.0.1:1"}}, "admin.listen", "'127.0.0.1:9090' cannot become '127.0.0.1:1'"),
        ({"state": "sqlite:x/y"}, "state", "cannot become 'sqlite:x/y' while the gateway runs"),
        ({"spool_dir": "x"}, "spool_dir", "cannot become 'x' while the gateway runs"),
    ],
)
def test_what_takes_a_restart(changed: dict[str, object], path: str, wrong: str) -> None:
    (complaint,) = lasting_changes(Document(), Document.model_validate(changed))
    assert complaint.path == path
    assert wrong in complaint.wrong
    assert complaint.right == "restart the gateway, or put it back as it was"


def test_all_else_can_change() -> None:
    changed = {"drain_delay_ms": 1, "admin": {"token": "s"}, "limits": {"max_connections": 1}, "allow_open": True}
    assert lasting_changes(Document(), Document.model_validate(changed)) == []
