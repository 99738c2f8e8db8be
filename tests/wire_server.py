"""A server that writes exactly the bytes a test tells it to: one script a connection, no HTTP library in it."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from fulcrum_adapters.upstream.config import HttpUpstreamConfig
from fulcrum_adapters.upstream.http import HttpUpstream
from fulcrum_mcp.ports import UpstreamRequest

__all__ = ["Peer", "Script", "WireServer", "answer", "http_upstream", "post", "wire_server"]


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: "WireServer") -> None:
        self._reader = reader
        self._writer = writer
        self._server = server

    async def request(self) -> bytes:
        """Read one request, whole; raises `IncompleteReadError` when the client leaves."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        raw = head + await self._reader.readexactly(length)
        self._server.requests.append(raw)
        async with self._server.changed:
            self._server.changed.notify_all()
        return raw

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def left(self) -> None:
        """Wait until the client has closed."""
        while await self._reader.read(65536):
            pass

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class WireServer:
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    gone: int = 0
    """Connections that ended."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    async def until_gone(self, count: int) -> None:
        await self.until(lambda: self.gone == count)


@asynccontextmanager
async def wire_server(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    state = WireServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        state.connections += 1
        try:
            await script(Peer(reader, writer, state))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()
            state.gone += 1
            async with state.changed:
                state.changed.notify_all()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(*parts: bytes, close: bool = False) -> Script:
    """Every request gets these bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in parts:
                await peer.send(part)
            if close:
                return

    return script


@asynccontextmanager
async def http_upstream(
    port: int, client: Literal["pool", "aiohttp"] = "pool", **options: Any
) -> AsyncIterator[HttpUpstream]:
    options = {"headers": {"Authorization": "Bearer canary-secret"}, "name": "files", **options}
    options.setdefault("url", f"http://127.0.0.1:{port}/mcp?key=canary-query")
    upstream = HttpUpstream(HttpUpstreamConfig(client=client, **options))
    try:
        yield upstream
    finally:
        await upstream.close()


def post(
    message: bytes = b'{"jsonrpc":"2.0","id":1,"method":"ping"}', *headers: tuple[bytes, bytes]
) -> UpstreamRequest:
    return UpstreamRequest("POST", list(headers), message)
