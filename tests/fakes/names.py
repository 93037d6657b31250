"""A resolver's answers, which a test cannot have otherwise: names with their addresses, who asked, when it answers."""

import socket
import threading
from typing import Any


def found(*addresses: str) -> "Names":
    """Every name has these addresses."""
    names = Names()
    names.addresses = list(addresses)
    return names


class Names:
    """Stands for the operating system's `getaddrinfo`, in whose place it is called: in threads."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        """Those of every name."""
        self.error: Exception | None = None
        """Raised in place of an answer."""
        self.asked: list[str] = []
        """The name of each lookup, in their order."""
        self.may_answer = threading.Event()
        """Cleared: lookups hang."""
        self.may_answer.set()

    def __call__(self, host: str) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        error, addresses = self.error, list(self.addresses)
        assert self.may_answer.wait(60)
        if error is not None:
            raise error
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in addresses
        ]
