"""The body of a request that has arrived whole (`proxy.arrived`), as aiohttp's readers have it."""

from aiohttp.streams import EmptyStreamReader


class ArrivedBody(EmptyStreamReader):
    """A body that is all here. `read_nowait` and `readany` give it once."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.total_bytes = len(data)

    def read_nowait(self, n: int = -1) -> bytes:
        """All of it, then b""."""
        data, self._data = self._data, b""
        return data

    async def readany(self) -> bytes:
        """The same."""
        return self.read_nowait()
