"""Keep-alive connections to one origin: the fast `Transport`.

A request is written once. It goes to another connection only when the chosen one was found closed before a byte was
written. Waiting for a place is first come, first served, and bounded. One timer serves all deadlines.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from math import inf

from .config import HttpUpstreamConfig
from .connection import Connection, PoolExchange
from .dialer import Dialer
from .fault import Fault
from .target import Target
from .transport import Headers

__all__ = ["Pool"]


class Pool:
    """Connections to one upstream; bound to the event loop that uses it first."""

    def __init__(
        self,
        config: HttpUpstreamConfig,
        target: Target,
        static: Headers,
        dialer: Dialer,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self.max_head = config.max_head
        self.head_seconds = config.head_seconds
        self.idle_seconds = config.idle_seconds
        self.keep_seconds = config.keep_seconds
        self._config = config
        self._target = target
        self._dialer = dialer
        self._tls = tls
        self._static = b"host: %b\r\n" % target.authority.encode() + encode(static)
        self._starts: dict[str, bytes] = {}
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._standing: set[Connection] = set()
        """Those that carry a stream somebody listens on; they take no place from calls, and are not used again."""
        self._places = config.max_connections
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = inf
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, verb: str, headers: Headers, body: bytes) -> PoolExchange:
        """See `Transport`."""
        start = self._starts.get(verb) or self._start(verb)
        parts = [start]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(body) if body or verb == "POST" else b"\r\n")
        connection = self._sound() or await self._acquire()
        exchange = await connection.request(verb, b"".join(parts), body)
        if verb == "GET" and not exchange.parted:
            self._standing.add(connection)
            self._vacate()
        return exchange

    async def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(_closed())
        for connection in tuple(self._open):
            connection.fail(Fault("the connection was closed while the call ran"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None:
            await asyncio.sleep(0)  # let the loop close the sockets

    # what connections tell

    def released(self, connection: Connection) -> None:
        """See `Owner`."""
        if connection in self._standing:
            connection.fail(_closed())
            return
        waiter = self._next()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """See `Owner`."""
        if connection in self._open:
            self._open.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            if connection in self._standing:
                self._standing.remove(connection)
            else:
                self._vacate()

    def watch(self, deadline: float) -> None:
        """See `Owner`."""
        if deadline < self._wakes and not self._closed:
            if self._timer is not None:
                self._timer.cancel()
            assert self._loop is not None
            self._wakes = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - self._loop.time()), self._sweep)

    # the rest

    def _start(self, verb: str) -> bytes:
        if verb not in ("DELETE", "GET", "HEAD", "OPTIONS", "POST"):
            raise Fault(f"{verb[:20]!r} is not a method that is sent to upstreams", sent=False)
        start = b"%b %b HTTP/1.1\r\n%b" % (verb.encode(), self._target.path.encode(), self._static)
        self._starts[verb] = start
        return start

    def _sound(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.fail(_closed())
        return None

    async def _acquire(self) -> Connection:
        self._loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise _closed()
            if self._places > 0:
                self._places -= 1
                return await self._dial()
            handed = await self._queue()
            if handed is None:
                return await self._dial()
            if handed.usable():
                return handed
            handed.fail(_closed())

    async def _queue(self) -> Connection | None:
        """Wait for a connection, or for a place to dial one (None: the place is taken for the caller)."""
        assert self._loop is not None
        limit, seconds = self._config.max_connections, self._config.queue_seconds
        if len(self._waiting) >= self._config.max_waiting:
            raise Fault(
                f"all {limit} connections are busy and too many calls wait", sent=False, remedy="try again later"
            )
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        timer = self._loop.call_later(seconds, self._late, waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise
        finally:
            timer.cancel()

    def _late(self, waiter: "asyncio.Future[Connection | None]") -> None:
        if not waiter.done():
            seconds = self._config.queue_seconds
            waiter.set_exception(
                Fault(
                    f"all {self._config.max_connections} connections stayed busy for {seconds:g} s",
                    sent=False,
                    timeout=True,
                    remedy="try again later, or raise max_connections",
                )
            )

    def _give_back(self, handed: Connection | None) -> None:
        if handed is None:
            self._vacate()
        elif handed in self._open:
            self.released(handed)

    async def _dial(self) -> Connection:
        loop = self._loop
        assert loop is not None
        try:
            connection = await self._dialer.connect(
                lambda: Connection(self, loop),
                self._target.host,
                self._target.port,
                tls=self._tls() if self._tls else None,
                seconds=self._config.connect_seconds,
            )
        except BaseException:
            self._vacate()
            raise
        self._open.add(connection)
        if self._closed:
            connection.fail(_closed())
            raise _closed()
        return connection

    def _vacate(self) -> None:
        waiter = self._next()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._places += 1

    def _next(self) -> "asyncio.Future[Connection | None] | None":
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _sweep(self) -> None:
        assert self._loop is not None
        self._timer, self._wakes = None, inf
        now, wakes = self._loop.time() + 0.002, inf  # a timer may fire a tick early
        for connection in tuple(self._open):
            if connection.deadline <= now:
                connection.expire()
            else:
                wakes = min(wakes, connection.deadline)
        if wakes < inf:
            self.watch(wakes)


def encode(headers: Headers) -> bytes:
    """Header lines."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _closed() -> Fault:
    return Fault("the connection was closed", sent=False, remedy="try again")
