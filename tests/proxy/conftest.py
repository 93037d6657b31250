"""What several of these tests start, and a certificate for those with TLS."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.certificates import Authority
from tests.fakes.host import Host


@pytest.fixture(scope="session")
def listener_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues what the listener shows; its `trusting()` is for clients."""
    return Authority(tmp_path_factory.mktemp("listener"))


@pytest.fixture(scope="session")
def listener_tls(listener_authority: Authority) -> dict[str, Any]:
    """`tls` of a configuration."""
    return {"certificate": str(listener_authority.issue("127.0.0.1", "localhost"))}


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
