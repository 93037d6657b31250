"""Sends a Reply at the pace and with the faults of its script, and writes down what was sent.

The body goes out in chunks (one write each). Before each chunk, and once more before the end, `_misbehave` looks
whether it is the script's turn. Nothing larger than about 64 KiB is held, whatever the size of the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import zlib
from collections.abc import Iterator
from socket import SO_LINGER, SOL_SOCKET

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from benchmarks.upstream.answers import Reply
from benchmarks.upstream.fills import PIECE_BYTES, Parts, bytes_of, length_of
from benchmarks.upstream.ledger import Entry, Ledger, Usage
from benchmarks.upstream.script import NORMAL, Script


async def deliver(
    request: web.BaseRequest, reply: Reply, script: Script, entry: Entry, ledger: Ledger
) -> web.StreamResponse:
    """Sends all of it and finishes the entry; does not return where the script cuts or stalls the connection."""
    if script is NORMAL and reply.parts is not None and length_of(reply.parts) <= PIECE_BYTES:
        return await _deliver_at_once(request, reply, reply.parts, entry, ledger)
    if script.head_delay_ms:
        await asyncio.sleep(script.head_delay_ms / 1000)
    delivery = _Delivery(request, reply, script, entry, ledger)
    await delivery.begin()
    if reply.parts is not None:
        await delivery.send(reply.parts, last=True)
        _said(entry, reply.usage)
    else:
        await _send_events(delivery, reply, script, entry)
    return await delivery.end()


async def _deliver_at_once(
    request: web.BaseRequest, reply: Reply, parts: Parts, entry: Entry, ledger: Ledger
) -> web.StreamResponse:
    """The usual small answer: one write."""
    body = b"".join(bytes_of(parts))
    headers = {"Content-Type": reply.content_type, reply.id_header: reply.request_id}
    response = web.Response(body=body, status=reply.status, headers=headers)
    entry.status = reply.status
    await response.prepare(request)
    await response.write_eof()
    entry.chunks = 1
    entry.response_bytes = len(body)
    entry.response_sha256 = hashlib.sha256(body).hexdigest()
    _said(entry, reply.usage)
    ledger.finish(entry, "complete")
    return response


async def _send_events(delivery: _Delivery, reply: Reply, script: Script, entry: Entry) -> None:
    for _ in range(script.keepalives):
        await delivery.send([b":keepalive\n\n"])
    outputs = 0
    for event in reply.events:
        if event.output:
            if outputs == script.error_after:
                break
            delay_ms = script.pace_ms if outputs else script.first_token_delay_ms
            if delay_ms:
                await asyncio.sleep(delay_ms / 1000)
            outputs += 1
        elif outputs and outputs == script.error_after:
            break
        await delivery.send(event.parts)
        _said(entry, event.usage)
    else:
        await delivery.send([], last=True)
        return
    await delivery.send(reply.error_event.parts if reply.error_event else [], last=True)


def _said(entry: Entry, usage: Usage | None) -> None:
    if usage is not None:
        entry.usage = usage


def _coalesced(parts: Parts) -> Iterator[bytes]:
    """The parts as few pieces, none much over 64 KiB: an ordinary event is one write."""
    held = bytearray()
    for piece in bytes_of(parts):
        held += piece
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


class _Delivery:
    """One response body on its way out."""

    def __init__(self, request: web.BaseRequest, reply: Reply, script: Script, entry: Entry, ledger: Ledger) -> None:
        self._request = request
        self._script = script
        self._entry = entry
        self._ledger = ledger
        self._sha256 = hashlib.sha256()
        self._uncut = bytearray()  # waits for chunk-bytes to be complete
        self._gzip = zlib.compressobj(wbits=31) if _wants_gzip(request, script) else None
        response = _Unframed() if script.framing == "eof" else web.StreamResponse()
        response.set_status(reply.status)
        response.headers["Content-Type"] = reply.content_type
        response.headers[reply.id_header] = reply.request_id
        if script.retry_after >= 0:
            response.headers["Retry-After"] = str(script.retry_after)
        if self._gzip:
            response.headers["Content-Encoding"] = "gzip"
        if script.framing == "eof":
            response.force_close()
        elif reply.parts is not None and not self._gzip:
            response.content_length = length_of(reply.parts)
        else:
            response.enable_chunked_encoding()
        self._response = response

    async def begin(self) -> None:
        """Sends the head."""
        self._entry.status = self._response.status
        await self._response.prepare(self._request)

    async def send(self, parts: Parts, *, last: bool = False) -> None:
        """Sends some body; with `last` what was held back too."""
        for piece in _coalesced(parts):
            data = piece.replace(b"\n", b"\r\n") if self._script.newline == "crlf" else piece
            if self._gzip:
                data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
            await self._cut(data)
        if last:
            if self._gzip:
                await self._cut(self._gzip.flush())
            if self._uncut:
                await self._chunk(bytes(self._uncut))
                self._uncut.clear()

    async def end(self) -> web.StreamResponse:
        """Ends the body well."""
        await self._misbehave()
        await self._response.write_eof()
        self._entry.response_sha256 = self._sha256.hexdigest()
        self._ledger.finish(self._entry, "complete")
        return self._response

    async def _cut(self, data: bytes) -> None:
        size = self._script.chunk_bytes
        if not size:
            await self._chunk(data)
            return
        self._uncut += data
        whole = len(self._uncut) // size * size
        for start in range(0, whole, size):
            await self._chunk(bytes(self._uncut[start : start + size]))
        del self._uncut[:whole]

    async def _chunk(self, data: bytes) -> None:
        await self._misbehave()
        self._entry.chunks += 1
        self._entry.response_bytes += len(data)
        self._sha256.update(data)
        await self._response.write(data)

    async def _misbehave(self) -> None:
        """Does what the script wants after as many chunks as have gone out; a cut or a stall never returns."""
        sent, script, transport = self._entry.chunks, self._script, self._request.transport
        if script.gate_after == sent:
            await self._entry.gate().wait()
        if script.stall_after == sent:
            await until_the_client_leaves()
        if sent not in (script.reset_after, script.truncate_after, script.malformed_after) or transport is None:
            return
        self._entry.response_sha256 = self._sha256.hexdigest()
        self._ledger.finish(self._entry, "cut")
        if sent == script.reset_after:
            # what was written must reach the client before the reset discards it: an empty write buffer is not yet
            # an empty kernel buffer, but over loopback the peer has the bytes once the kernel took them
            await self._request.writer.drain()
            linger_zero = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger_zero)
            transport.abort()
        else:
            if sent == script.malformed_after:
                transport.write(b"zz\r\nthis is no chunk\r\n")
            transport.close()
        await until_the_client_leaves()


async def until_the_client_leaves() -> None:
    """Waits for the cancellation that the end of the connection brings (`handler_cancellation`)."""
    await asyncio.get_running_loop().create_future()


def _wants_gzip(request: web.BaseRequest, script: Script) -> bool:
    accepts = "gzip" in request.headers.get("Accept-Encoding", "")
    return script.gzip == "force" or (script.gzip == "1" and accepts)


class _Unframed(web.StreamResponse):
    """A body that ends with its connection. aiohttp frames every one for HTTP/1.1, hence this."""

    _transport: asyncio.Transport
    _writer: AbstractStreamWriter

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes the head, once (aiohttp calls again after the handler)."""
        if not hasattr(self, "_transport"):
            if request.transport is None:
                raise ConnectionResetError("the client left before the head")
            self._transport, self._writer = request.transport, request.writer
            lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{k}: {v}" for k, v in self.headers.items())]
            self._transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        return self._writer

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes some body."""
        self._transport.write(data)
        await self._writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing marks the end but the connection's."""
