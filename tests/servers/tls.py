"""TLS before a server whose wheel was built without it, as Postgres and Valkey are: it ends here and goes on in clear.

What clients meet is real TLS by OpenSSL, in the manner of the protocol behind it: Postgres's clients ask for it first.
That its server itself demands certificates of them (`clientcert`, `tls-auth-clients`) is played here. NATS speaks TLS
by itself: `TlsNats`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from servers.certificates import Pair
from servers.nats import NatsServer
from servers.process import HOST, free_port

__all__ = ["SecureNats", "TlsFront", "TlsNats"]

Manner = Literal["at once", "postgres"]
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
_TLS = 0x16
_LONG = 30.0
_CHUNK = 65536


class TlsFront:
    """Listens with a certificate that can be changed; `clear`: also those who do not ask for TLS are served."""

    def __init__(self, port: int, pair: Pair, *, manner: Manner = "at once", clear: bool = False) -> None:
        self.port = free_port()
        self.clear = clear
        self.accepted = 0
        """Handshakes that were complete on this side."""
        self.plain = 0
        """Connections that were served in clear text."""
        self._target = port
        self._manner = manner
        self._pair = pair
        self._ca: Path | None = None
        self._newest: ssl.TLSVersion | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"tls-front-{self.port}", daemon=True)
        self._listener: socket.socket | None = None
        self._tasks = set[asyncio.Task[None]]()

    def show(self, pair: Pair, *, cut: bool = True) -> None:
        """Another certificate for new connections; `cut`: the present ones end."""
        self._pair = pair
        if cut:
            self._wait(self._cut())

    def demand(self, ca: Path | None, *, cut: bool = True) -> None:
        """New clients must show a certificate that `ca` has signed; None: they need none."""
        self._ca = ca
        if cut:
            self._wait(self._cut())

    def speak_at_most(self, version: ssl.TLSVersion | None) -> None:
        """As an old server does."""
        self._newest = version
        self._wait(self._cut())

    def ask(self, client: socket.socket) -> None:
        """What a client says before TLS."""
        if self._manner == "postgres":
            client.sendall(_SSL_REQUEST)
            assert client.recv(1) == b"S"

    def start(self) -> Self:
        self._thread.start()
        self._wait(self._listen())
        return self

    def stop(self) -> None:
        """Idempotent."""
        if self._thread.is_alive():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_LONG)
            self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_LONG)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._pair)
        if self._ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._ca)
        if self._newest is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = self._newest
        return context

    async def _listen(self) -> None:
        listener = socket.create_server((HOST, self.port), backlog=256)
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # it went again
            return
        client.setblocking(False)
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        first = b""
        with client, contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._manner == "postgres":
                first = await self._loop.sock_recv(client, len(_SSL_REQUEST))
                if first == _SSL_REQUEST:
                    await self._loop.sock_sendall(client, b"S")
                    first = b""
            if first or (self.clear and await self._peeked(client) != _TLS):
                if not self.clear:
                    return
                self.plain += 1
                await self._join(client, None, first)
                return
            await self._join(client, self._context(), b"")

    async def _peeked(self, client: socket.socket) -> int:
        """The first byte, which stays where it is."""
        readable = asyncio.Event()
        self._loop.add_reader(client, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(client)
        return int.from_bytes(client.recv(1, socket.MSG_PEEK))

    async def _join(self, client: socket.socket, context: ssl.SSLContext | None, first: bytes) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        ends = [back]
        try:
            made, _ = await self._loop.connect_accepted_socket(lambda: protocol, client, ssl=context)
            self.accepted += context is not None
            ends.append(asyncio.StreamWriter(made, protocol, reader, self._loop))
            back.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(_carry(reader, back))
                group.create_task(_carry(there, ends[1]))
        except* OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _cut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        await self._cut()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        target.write(chunk)
        await target.drain()
    raise ConnectionResetError  # the other way ends too


class SecureNats(NatsServer):
    """Settings with a `tls` block."""

    def answers(self, seconds: float = 1.0) -> bool:
        """It says who it is before TLS."""
        try:
            with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
                return b'"jetstream":true' in connection.recv(4096)
        except OSError:
            return False


class TlsNats(SecureNats):
    """NATS that takes nobody without TLS."""

    def __init__(self, folder: Path, pair: Pair, *, token: str | None = None, demand: Path | None = None) -> None:
        super().__init__(folder, token=token)
        self._pair = pair
        self._demand = demand

    @property
    def url(self) -> str:
        return super().url.replace("nats://", "tls://")

    def show(self, pair: Pair) -> None:
        """Another certificate, and no connection of before."""
        self._pair = pair
        self.restart()

    def demand(self, ca: Path | None) -> None:
        """Of clients, a certificate that `ca` has signed, or none; no connection of before."""
        self._demand = ca
        self.restart()

    def reload(self, pair: Pair) -> None:
        """Another certificate for new connections; the present ones stay."""
        self._pair = pair
        seen = self.log.read_text().count("Reloaded server configuration")
        self.command()
        os.kill(self.pid, signal.SIGHUP)
        until = time.monotonic() + _LONG
        while self.log.read_text().count("Reloaded server configuration") == seen:
            assert time.monotonic() < until, self.tail()
            time.sleep(0.005)

    def command(self) -> Sequence[str]:
        verify = "" if self._demand is None else f'ca_file: "{self._demand}", verify: true'
        cert, key = self._pair
        self._settings = f'tls {{ cert_file: "{cert}", key_file: "{key}", {verify} }}'
        return super().command()
