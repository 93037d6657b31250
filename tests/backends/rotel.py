"""rotel, a collector of another maker: takes OTLP over gRPC and HTTP, and hands it on to an endpoint over HTTP.

Its package has no command; the program lies inside the package.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from tests.backends.programs import FOLDER
from tests.fakes.programs import started


@contextlib.asynccontextmanager
async def rotel(to: str) -> AsyncIterator[str]:
    """The URL of its gRPC endpoint; what comes there goes to `to`, a URL without path."""
    port = free_port()
    command = (
        *(_program(), "start", "--otlp-grpc-endpoint", f"127.0.0.1:{port}"),
        *("--otlp-http-endpoint", f"127.0.0.1:{free_port()}"),
        *("--otlp-exporter-endpoint", to, "--otlp-exporter-protocol", "http"),
    )
    async with started(*command, port=port):
        yield f"http://127.0.0.1:{port}"


def _program() -> str:
    folder = Path(os.environ.get(FOLDER, "nowhere"))
    found = next(folder.parent.glob("lib/python3*/site-packages/rotel/rotel-agent"), None)
    if found is None:
        pytest.skip(f"rotel is not installed: make backends, or {FOLDER}=the bin folder of its environment")
    return str(found)
