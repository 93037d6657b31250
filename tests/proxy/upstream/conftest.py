"""Every test here runs on asyncio's own loop and on uvloop: the two differ in the order of callbacks and in errors."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.config.targets import PLAIN_TLS, Egress, Tls
from proxy.upstream.address import Address
from proxy.upstream.pool import Pool
from proxy.upstream.resolver import Lookup, Resolver
from tests.fakes.certificates import Authority

NewPool = Callable[..., Pool]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("certificates")))


@pytest.fixture
async def new_pool() -> Any:
    """Makes a pool for 127.0.0.1:port; closed at the end of the test, and then nothing of it may be left open.

    `tls_ca`: a file of authorities. `lookup` stands for the operating system's resolver, whose answers a test cannot
    have otherwise.
    """
    pools: list[Pool] = []

    def make(
        port: int,
        *,
        scheme: str = "http",
        host: str = "127.0.0.1",
        tls_ca: Path | None = None,
        tls: Tls = PLAIN_TLS,
        egress: Egress | None = None,
        lookup: Lookup | None = None,
        **how: Any,
    ) -> Pool:
        if lookup is not None:
            how["resolver"] = Resolver(lookup)
        options = replace(tls, ca=str(tls_ca)) if tls_ca else tls
        pools.append(Pool(Address(scheme, host, port, options, egress), **how))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
        assert pool.open_connections == 0, f"{pool} was not given everything back"
    await asyncio.sleep(0)  # lets the transports close their sockets before the loop ends
