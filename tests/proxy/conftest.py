"""What several of these tests start."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(**wish: Any) -> Host:
        hosts.append(Host(tmp_path / str(len(hosts)), wish))
        return hosts[-1]

    yield start
    for each in hosts:
        each.process.kill()
        each.process.wait()
        assert each.process.stdout is not None
        each.process.stdout.close()
