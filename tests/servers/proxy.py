"""A TCP proxy that does to a connection what networks do, on a thread of its own, switched while it runs.

One fault at a time; `heal` ends it. A connection that has lost bytes is reset then, since its ends no longer agree.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from servers.process import HOST, free_port

__all__ = ["Direction", "FaultProxy", "Way"]

Way = Literal["up", "down"]
"""To the server, or to the client."""
Direction = Literal["up", "down", "both"]

_CHUNK = 65536
_LONG = 30.0
_RST = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class _Fault:
    kind: Literal["none", "latency", "reset", "blackhole", "slice", "corrupt", "refuse"] = "none"
    direction: Direction = "both"
    seconds: float = 0.0
    size: int = 0

    def hits(self, kind: str, way: Way) -> bool:
        return self.kind == kind and self.direction in {way, "both"}


class FaultProxy:
    """Stands between clients and one server. Its counters say what it has really done."""

    def __init__(self, port: int, *, host: str = HOST, listen: int | None = None) -> None:
        self.target = (host, port)
        self.port = listen or free_port()
        self.connections = 0
        """Accepted so far."""
        self.carried: dict[Way, int] = {"up": 0, "down": 0}
        """Bytes handed on."""
        self.swallowed: dict[Way, int] = {"up": 0, "down": 0}
        self.flipped: dict[Way, int] = {"up": 0, "down": 0}
        self._fault = _Fault()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-proxy-{self.port}", daemon=True)
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None
        self._pairs = dict["_Pair", asyncio.Task[None]]()

    def start(self) -> Self:
        self._thread.start()
        self._wait(self._listen())
        return self

    def stop(self) -> None:
        """Idempotent."""
        if not self._thread.is_alive():
            return
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LONG)
        self._loop.close()

    def through(self, url: str) -> str:
        """The same URL, by way of this proxy."""
        parts = urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0]
        where = f"{HOST}:{self.port}"
        return urlunsplit(parts._replace(netloc=f"{credentials}@{where}" if credentials else where))

    def latency(self, seconds: float, direction: Direction = "both") -> None:
        """Every piece arrives so much later, one way or each; their order and rate stay."""
        self._switch(_Fault("latency", direction, seconds))

    def reset(self) -> None:
        """Connections are reset, new ones as soon as they are made."""
        self._switch(_Fault("reset"))

    def drop(self) -> None:
        """Reset the present connections once; new ones work."""
        self._wait(self._reset_all())

    def blackhole(self, direction: Direction = "both") -> None:
        """Connections are made and stay; what is sent is taken and never arrives, its end neither."""
        self._switch(_Fault("blackhole", direction))

    def slice(self, size: int = 1, pause: float = 0.0005, direction: Direction = "both") -> None:
        """Bytes arrive in pieces of at most `size`, with a pause after each."""
        self._switch(_Fault("slice", direction, pause, size))

    def corrupt(self, every: int, direction: Direction = "both") -> None:
        """One bit in every so many bytes is flipped."""
        self._switch(_Fault("corrupt", direction, size=every))

    def refuse(self) -> None:
        """Nobody listens; present connections are reset."""
        self._switch(_Fault("refuse"))

    def heal(self) -> None:
        """Work again, on the same port."""
        self._switch(_Fault())

    @property
    def fault(self) -> str:
        """The present fault's name; `none`."""
        return self._fault.kind

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_LONG)

    def _switch(self, fault: _Fault) -> None:
        self._wait(self._become(fault))

    async def _become(self, fault: _Fault) -> None:
        self._fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault.kind in {"reset", "refuse"}:
            await self._reset_all()
        elif fault.kind != "blackhole":
            await self._reset_all(lossy=True)
        if fault.kind == "refuse":
            self._deafen()
        elif self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen(256)
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    def _deafen(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        """At once, so that no connection is lost between being accepted and being known."""
        try:
            client, _ = listener.accept()
        except OSError:  # it went again
            return
        self.connections += 1
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client)
        if self._fault.kind in {"reset", "refuse"}:
            pair.reset()
            return
        task = self._loop.create_task(self._serve(pair))
        self._pairs[pair] = task
        task.add_done_callback(partial(self._forget, pair))

    def _forget(self, pair: "_Pair", _done: "asyncio.Task[None]") -> None:
        self._pairs.pop(pair, None)

    async def _serve(self, pair: "_Pair") -> None:
        server = pair.ends["up"] = socket.socket()
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.sock_connect(server, self.target)
            async with asyncio.TaskGroup() as group:
                for way in ("up", "down"):
                    line = asyncio.Queue[tuple[float, bytes]](64)
                    group.create_task(self._read(pair, way, line))
                    group.create_task(self._write(pair, way, line))
        except* OSError:
            pair.reset()
        finally:
            pair.close()

    async def _read(self, pair: "_Pair", way: Way, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        source = pair.ends["down" if way == "up" else "up"]
        while True:
            chunk = await self._loop.sock_recv(source, _CHUNK)
            if self._fault.hits("blackhole", way):
                pair.lossy = True
                self.swallowed[way] += len(chunk)
                if not chunk:
                    await asyncio.Event().wait()  # its end is not told either; `heal` or `stop` ends this
                continue
            await line.put((time.monotonic(), chunk))
            if not chunk:
                return

    async def _write(self, pair: "_Pair", way: Way, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        target = pair.ends[way]
        passed = flips = 0
        while True:
            came, chunk = await line.get()
            await self._hold_back(came, way)
            if self._fault.hits("blackhole", way):  # it was on its way when the hole opened
                pair.lossy = True
                self.swallowed[way] += len(chunk)
                continue
            if not chunk:
                target.shutdown(socket.SHUT_WR)
                return
            if self._fault.hits("corrupt", way):
                every = self._fault.size
                wrong = bytearray(chunk)
                for at in range(every - 1 - passed % every, len(chunk), every):
                    wrong[at] ^= 1 << flips % 8
                    flips += 1
                    self.flipped[way] += 1
                passed += len(chunk)
                chunk = bytes(wrong)
            while self._fault.hits("slice", way) and chunk:
                fault = self._fault
                piece, chunk = chunk[: fault.size], chunk[fault.size :]
                await self._loop.sock_sendall(target, piece)
                self.carried[way] += len(piece)
                await self._sleep(fault.seconds)
            if chunk:
                await self._loop.sock_sendall(target, chunk)
                self.carried[way] += len(chunk)

    async def _hold_back(self, came: float, way: Way) -> None:
        while self._fault.hits("latency", way):
            left = came + self._fault.seconds - time.monotonic()
            if left <= 0:
                return
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the fault changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _reset_all(self, *, lossy: bool = False) -> None:
        for pair, task in list(self._pairs.items()):
            if pair.lossy or not lossy:
                pair.reset_when_closed()
                await _ended(task)
                pair.close()  # a task that is ended before it began closes nothing

    async def _close(self) -> None:
        self._deafen()
        await self._reset_all()


class _Pair:
    """The two sockets of one connection."""

    def __init__(self, client: socket.socket) -> None:
        self.ends: dict[Way, socket.socket] = {"down": client}
        self.lossy = False

    def reset_when_closed(self) -> None:
        for end in self.ends.values():
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)

    def reset(self) -> None:
        self.reset_when_closed()
        self.close()

    def close(self) -> None:
        for end in self.ends.values():
            end.close()


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
