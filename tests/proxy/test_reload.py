"""Control's eye on the file: what it takes for a change, and when it reads."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config import file as config_file
from proxy.config.change import lasting_changes
from proxy.config.model import Document
from proxy.reload import Reload
from proxy.state import StateFolder, read_kept

TEXT = """
services: [{{name: sim, provider: openai, base_url: "http://127.0.0.1:1", api_keys: [sk], idle_timeout_ms: {number}}}]
"""


class Followed:
    """A file, what follows it, and what came of it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.file = folder / "sluiceway.yaml"
        self.announced: asyncio.Queue[tuple[int, Document]] = asyncio.Queue()
        text, document = config_file.read(self.file, os.environ, options)
        self._state = StateFolder(folder / "state")
        adopted = self._state.adopt(text)
        self.kept = adopted.path
        state = StateFolder(folder / "state", lock=False)
        self.reload = Reload(self.file, state, read_kept(self.kept), document, options, self._announce)

    def _announce(self, generation: int, document: Document) -> None:
        self.announced.put_nowait((generation, document))

    async def next(self) -> tuple[int, int]:
        """Number of the next generation, and of what it says."""
        generation, document = await asyncio.wait_for(self.announced.get(), 10)
        return generation, document.services[0].idle_timeout_ms


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
    async with following(tmp_path) as followed:
        file.write_text(text(2))
        followed.reload.ask()
        assert await followed.next() == (2, 2)
        followed.reload.ask()
        file.write_text(text(3))
        assert await followed.next() == (3, 3)


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
