"""What the middleware counts where something of ours fails."""

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from observability.board import CELLS, Cell
from observability.middleware import ObservationMiddleware
from observability.sampling import TraceContext


class Nobody:
    """Takes records and counts, and keeps none."""

    def hand_over(self, record: tuple, frames: Sequence[bytes] = ()) -> None: ...

    def count(self, *labels: object) -> None: ...


async def test_a_request_that_cannot_be_opened_leaves_no_count_behind():
    def sample(context: TraceContext) -> bool:
        raise ArithmeticError

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    row = memoryview(bytearray(CELLS * 8)).cast("Q")
    handler = ObservationMiddleware(Nobody(), Nobody(), row, sample).wrap(handle)
    request = make_mocked_request("GET", "/", loop=asyncio.get_running_loop())
    request.protocol.arrived_ns = 0
    with pytest.raises(ArithmeticError):
        await handler(request)
    assert (row[Cell.ACTIVE], row[Cell.STARTED]) == (0, row[Cell.HANDED])
