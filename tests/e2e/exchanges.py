"""Requests that stand still in the middle while something happens to the gateway."""

from observability.board import DROP_REASONS, Board, Cell
from tests.e2e.traffic import CHAT, Client, Got, chat_body, head_of
from tests.fakes.simulated import Simulated

UPLOAD_BYTES = 2 << 20


class Exchange:
    """A request that stands still in the middle, of its upload or of its answer, until it is told to go on."""

    def __init__(self, name: str, client: Client, body: bytes) -> None:
        self.name = name
        self.client = client
        self.body = body
        self.got = Got()

    @classmethod
    async def uploading(cls, port: int, upstream: Simulated, name: str) -> "Exchange":
        """Half of the body is sent, and the upstream has seen some of it."""
        exchange = cls(name, await Client.to(port), chat_body(stream=True, usage=True, size=UPLOAD_BYTES))
        body = exchange.body
        await exchange.client.send(head_of(CHAT, name, len(body)) + body[: len(body) // 2])
        await upstream.arrived(name)
        return exchange

    @classmethod
    async def streaming(cls, port: int, name: str) -> "Exchange":
        """The first events of the answer have come; the upstream keeps the others."""
        exchange = cls(name, await Client.to(port), chat_body(stream=True))
        body = exchange.body
        await exchange.client.send(head_of(CHAT, name, len(body), x_sim_gate_after="2") + body)
        await exchange.client.receive(exchange.got, until_bytes=1)
        return exchange

    async def finish_upload(self) -> Got:
        """Send the other half and read the answer."""
        await self.client.send(self.body[len(self.body) // 2 :])
        return await self.client.receive(self.got)

    async def finish_stream(self, upstream: Simulated) -> Got:
        """Let the upstream go on and read the rest."""
        await upstream.open(self.name)
        return await self.client.receive(self.got)


def whole(got: Got) -> bool:
    """The last event and the last chunk have come."""
    return got.status == 200 and got.whole and got.body.endswith(b"data: [DONE]\n\n")


def accounted_for(board: Board, requests: int) -> None:
    """Every request has its line."""
    assert board.total(Cell.STARTED) == board.total(Cell.HANDED) == board.total(Cell.TAKEN) == requests
    assert sum(board.total(cell) for cell in DROP_REASONS.values()) == 0
