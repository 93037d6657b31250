"""The upstream of streams and large bodies: ``python -m benchmarks.contest.upstream --listen HOST:PORT``.

It does what `asked` says, and as little else as can be, so that one core carries it together with the client: plain
sockets and epoll, no event loop, no task, no copy of a body. (The small chat is answered by nginx, which is quicker
still but reads no upload to its end before it answers, and cannot keep a pace.)
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import re
import select
import socket
from collections import deque

from benchmarks.contest import asked
from benchmarks.contest.clock import Alarm, now_ns

READ_BYTES = 512 * 1024
AT_ONCE = 16
"""Events in one write at full speed: about 4 KB, as much as a busy model server hands over at once."""
HEAD_BYTES_MAX = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_MODELS = json.dumps(
    {"object": "list", "data": [{"id": asked.MODEL, "object": "model", "created": 1, "owned_by": "bench"}]}
).encode()


class _Connection:
    """One connection: where its request is, and what is still to be sent."""

    __slots__ = ("body", "channel", "chunked", "events", "left", "out", "pace_ns", "path", "received", "told")

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.path = b""
        self.body = bytearray()
        """Of the head first, then of the body what is kept."""
        self.left: int | None = None
        """Bytes of the body still to come; None: the head is not complete."""
        self.chunked: Chunks | None = None
        self.received = 0
        self.out: deque[memoryview] = deque()
        self.events = 0
        """Of a stream at full speed, still to be sent."""
        self.told = 0
        self.pace_ns = 0


class Chunks:
    """Takes chunked framing off; `over` at the end."""

    def __init__(self) -> None:
        self.over = False
        self._line = bytearray()
        self._left = 0
        """Of the chunk and of the CRLF behind it."""

    def take(self, data: bytes) -> list[bytes | memoryview]:
        """The pieces of the body in this data."""
        pieces: list[bytes | memoryview] = []
        at = 0
        while at < len(data) and not self.over:
            if self._left:
                got = data[at : at + self._left]
                self._left -= len(got)
                at += len(got)
                pieces.append(got[: len(got) - max(0, 2 - self._left)] if self._left < 2 else got)
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end + 1 if end >= 0 else len(data)]
            at = end + 1 if end >= 0 else len(data)
            if self._line.endswith(b"\n"):
                line = bytes(self._line).strip()
                self._line.clear()
                if line:
                    size = int(line.split(b";")[0], 16)
                    self.over = size == 0  # the empty line behind it is taken for the start of the next head
                    self._left = size + 2 if size else 0
        return pieces


class Upstream:
    """Serves until the process ends."""

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port), backlog=4096, reuse_port=False)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._alarm = Alarm()
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(self._alarm.fd, select.EPOLLIN)
        self._open: dict[int, _Connection] = {}
        self._due: dict[int, deque[tuple[int, _Connection]]] = {}
        """By pace: of one pace they come due in the order in which they were put in."""
        self._buffer = memoryview(bytearray(READ_BYTES))

    def serve(self) -> None:
        """For ever."""
        while True:
            for fd, event in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._alarm.fd:
                    self._alarm.rung()
                elif (connection := self._open.get(fd)) is not None:
                    try:
                        if event & select.EPOLLOUT:
                            self._flush(connection)
                        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                            self._read(connection)
                    except (OSError, ValueError, IndexError):  # a head or a chunk that is none: one connection's end
                        self._close(connection)
            self._keep_pace()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except BlockingIOError:
                return
            channel.setblocking(False)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open[channel.fileno()] = _Connection(channel)
            self._poll.register(channel, select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        if self._open.pop(connection.channel.fileno(), None) is not None:
            connection.channel.close()
        connection.pace_ns = connection.events = 0
        connection.out.clear()

    def _read(self, connection: _Connection) -> None:
        left = connection.left
        # of a large body nothing but its length is wanted any more: the kernel need not copy it
        drops = left is not None and connection.chunked is None and connection.received >= asked.KEPT_BYTES
        try:
            if drops:
                count = connection.channel.recv_into(self._buffer, min(left or 0, READ_BYTES), socket.MSG_TRUNC)
            else:
                count = connection.channel.recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            self._close(connection)
        elif connection.left is None:
            connection.body += self._buffer[:count]
            end = connection.body.find(b"\r\n\r\n")
            if end >= 0:
                self._begin(connection, end)
            elif len(connection.body) > HEAD_BYTES_MAX:
                self._close(connection)
        else:
            self._take(connection, self._buffer[:count])

    def _begin(self, connection: _Connection, end: int) -> None:
        """The head is there."""
        if connection.body.startswith(b"\r\n"):  # left over from the chunked body before
            del connection.body[:2]
            end -= 2
        head, rest = bytes(connection.body[: end + 2]), bytes(connection.body[end + 4 :])
        connection.path = head.split(b" ", 2)[1]
        connection.body.clear()
        connection.received = 0
        length = _LENGTH.search(head)
        connection.left = int(length[1]) if length else 0
        connection.chunked = Chunks() if _CHUNKED.search(head) else None
        if b"\r\nexpect: 100-continue" in head.lower():
            connection.channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take(connection, memoryview(rest))

    def _take(self, connection: _Connection, data: memoryview) -> None:
        assert connection.left is not None
        if connection.chunked is not None:
            pieces = connection.chunked.take(bytes(data))
            over = connection.chunked.over
        else:
            pieces = [data]
            connection.left -= len(data)
            over = connection.left <= 0
        for piece in pieces:
            connection.received += len(piece)
            if len(connection.body) < asked.KEPT_BYTES:
                connection.body += piece
        if over:
            self._answer(connection)

    def _answer(self, connection: _Connection) -> None:
        body = bytes(connection.body)
        connection.body.clear()
        connection.left = None
        found = asked.ORDER.search(body)
        what, number, other = (found[1], int(found[2]), int(found[3])) if found else (b"", 0, 0)
        if what in (b"paced", b"idle"):
            self._stream(connection, number, other, idle=what == b"idle")
        elif what == b"image":
            self._send_json(connection, asked.image_answer(number))
        elif what == b"digest":
            image = asked.IMAGE.search(body)
            digest = hashlib.sha256(image[1] if image else b"").hexdigest()
            self._send_json(connection, asked.chat_answer(digest, connection.received))
        elif connection.path.endswith(b"/embeddings"):
            self._send_json(connection, asked.embeddings_answer())
        elif connection.path.endswith(b"/models"):
            self._send_json(connection, _MODELS)
        elif connection.received >= asked.KEPT_BYTES:
            self._send_json(connection, asked.chat_answer("A lock.", connection.received))
        else:
            self._send_json(connection, asked.CHAT_ANSWER)

    def _send_json(self, connection: _Connection, body: bytes) -> None:
        head = _JSON_HEAD % len(body)
        if len(body) < asked.KEPT_BYTES:
            self._send(connection, head + body)
        else:
            self._send(connection, head)
            self._send(connection, body)

    def _stream(self, connection: _Connection, events: int, pace_ms: int, *, idle: bool) -> None:
        connection.told = 0
        connection.events = events
        self._send(connection, _SSE_HEAD)
        if idle:
            first = asked.event(now_ns())
            self._send(connection, b"%x\r\n%b\r\n" % (len(first), first))
            connection.events = 0
        elif pace_ms:
            connection.pace_ns = pace_ms * 1_000_000
            self._tell(connection)
            line = self._due.setdefault(connection.pace_ns, deque())
            line.append((now_ns() + connection.pace_ns, connection))
        else:
            self._pour(connection)

    def _tell(self, connection: _Connection) -> None:
        """The next event of a stream with a pace; behind the last one, its end."""
        connection.told += 1
        piece = asked.event(now_ns())
        framed = b"%x\r\n%b\r\n" % (len(piece), piece)
        if connection.told == connection.events:
            piece = asked.last_event(connection.events)
            framed += b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece)
            connection.pace_ns = connection.events = 0
        self._send(connection, framed)

    def _keep_pace(self) -> None:
        """Sends what has come due, and sets the alarm for what comes next."""
        soonest, now = 0, now_ns()
        for pace_ns, line in self._due.items():
            while line and line[0][0] <= now:
                due, connection = line.popleft()
                if not connection.pace_ns:
                    continue  # it is gone
                try:
                    self._tell(connection)
                except OSError:
                    self._close(connection)
                if connection.pace_ns:
                    line.append((due + pace_ns, connection))
            if line and (not soonest or line[0][0] < soonest):
                soonest = line[0][0]
        if soonest:
            self._alarm.set(soonest)

    def _pour(self, connection: _Connection) -> None:
        """Events without a pace, as long as they are taken."""
        while connection.events and not connection.out:
            count = min(AT_ONCE, connection.events)
            connection.events -= count
            connection.told += count
            piece = asked.event(now_ns()) * count
            if not connection.events:
                piece += asked.last_event(connection.told)
            framed = b"%x\r\n%b\r\n" % (len(piece), piece)
            self._send(connection, framed if connection.events else framed + b"0\r\n\r\n")

    def _send(self, connection: _Connection, data: bytes) -> None:
        rest = memoryview(data)
        if not connection.out:
            try:
                rest = rest[connection.channel.send(rest) :]
            except BlockingIOError:
                pass
        if rest:
            if not connection.out:
                self._poll.modify(connection.channel, select.EPOLLIN | select.EPOLLOUT)
            connection.out.append(rest)

    def _flush(self, connection: _Connection) -> None:
        out = connection.out
        while out:
            try:
                sent = connection.channel.send(out[0])
            except BlockingIOError:
                return
            if sent < len(out[0]):
                out[0] = out[0][sent:]
                return
            out.popleft()
        self._poll.modify(connection.channel, select.EPOLLIN)
        if not connection.pace_ns:
            self._pour(connection)


def main() -> None:
    """Listens and serves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contest.upstream")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    host, _, port = parser.parse_args().listen.rpartition(":")
    upstream = Upstream(host, int(port))
    asked.embeddings_answer()
    gc.collect()
    gc.freeze()
    gc.disable()
    upstream.serve()


if __name__ == "__main__":
    main()
