"""One HTTP/1.1 connection to an upstream: one exchange at a time, strict framing, bounded memory.

It must never hand one answer to another's question: whatever is doubtful after an answer (extra bytes, an unfinished
request, a close) drops the connection. Parsing is llhttp's (`httptools`) in its strict mode; the checks it leaves to
its user (limits, unknown transfer codings, status range, end of stream) are made here.
"""

import asyncio
import select
from collections import deque
from math import inf
from typing import Final, Protocol, cast

import httptools

from .fault import Fault
from .transport import Headers

__all__ = ["Connection", "Owner", "PoolExchange"]

_HIGH: Final = 256 * 1024
_LOW: Final = 64 * 1024
_HANGUP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Owner(Protocol):
    """What a connection tells its pool."""

    max_head: int
    head_seconds: float
    idle_seconds: float
    keep_seconds: float

    def released(self, connection: "Connection") -> None:
        """It is idle and sound."""
        ...

    def lost(self, connection: "Connection") -> None:
        """It is closed, or about to be. May be told twice."""
        ...

    def watch(self, deadline: float) -> None:
        """Have `expire` called at the connection's `deadline`, unless it has moved by then."""
        ...


class PoolExchange:
    """One request on a connection; it outlives the connection's part in it."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_fault",
        "_loop",
        "_waiter",
        "ended",
        "headers",
        "ready",
        "status",
    )

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Headers = []
        self.ready = False
        self.ended = False
        self._connection: Connection | None = connection
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._fault: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def parted(self) -> bool:
        """True once its connection is another's."""
        return self._connection is None

    async def head(self) -> None:
        """Wait for the final answer's head."""
        while not self.ready:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def chunk(self) -> bytes:
        """See `Exchange`."""
        chunks = self._chunks
        while not chunks:
            if self._fault is not None:
                raise self._fault
            if self.ended:
                return b""
            await self._wait()
        data = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    def abort(self) -> None:
        """See `Exchange`."""
        if self._connection is not None:
            self._connection.fail(Fault("the answer was given up"))

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None

    def push(self, data: bytes) -> bool:
        """Take a part of the body; True when the consumer is too slow."""
        self._chunks.append(data)
        self._buffered += len(data)
        return self._buffered > _HIGH

    def wake(self) -> None:
        """Let the consumer look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def part(self, fault: Fault | None) -> None:
        """The connection has nothing more for this exchange."""
        self._connection = None
        if not self.ended:
            self._fault = fault
        self.wake()


class Connection(asyncio.Protocol):
    """One socket."""

    __slots__ = (
        "_body_to_end",
        "_complete",
        "_exchange",
        "_extra",
        "_headless",
        "_informational",
        "_keep",
        "_loop",
        "_owner",
        "_parser",
        "_paused",
        "_poll",
        "_quiet",
        "_refused",
        "_transport",
        "deadline",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: PoolExchange | None = None
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._paused = False
        self._refused = ""
        self._complete = self._extra = self._informational = self._headless = self._body_to_end = self._keep = False
        self._quiet = 0
        self.deadline = inf

    # what the pool asks

    def usable(self) -> bool:
        """False when the other side has closed or written out of turn, known to the loop or only to the kernel."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)

    async def request(self, verb: str, head: bytes, body: bytes) -> PoolExchange:
        """Write one request and wait for the answer's head."""
        exchange = self._exchange = PoolExchange(self, self._loop)
        self._complete = self._extra = self._informational = False
        self._headless = verb == "HEAD"
        self._body_to_end = False
        self._quiet = 0
        transport = self._transport
        if transport is None or transport.is_closing():
            self.fail(Fault("the connection was closed", sent=False, connect=True))
        elif len(body) < _LOW:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self.deadline = self._loop.time() + self._owner.head_seconds
        self._owner.watch(self.deadline)
        await exchange.head()
        return exchange

    def expire(self) -> None:
        """The deadline has passed."""
        exchange, owner = self._exchange, self._owner
        if exchange is None or exchange.ready:
            self.fail(Fault(f"it sent nothing for {owner.idle_seconds:g} s", timeout=True))
        else:
            self.fail(Fault(f"no answer within {owner.head_seconds:g} s", timeout=True))

    def fail(self, fault: Fault) -> None:
        """Close at once; an exchange under way fails with `fault`."""
        exchange, self._exchange = self._exchange, None
        self.deadline = inf
        if self._transport is not None:
            self._transport.abort()
        self._owner.lost(self)
        if exchange is not None:
            exchange.part(fault)

    def resume(self) -> None:
        """The consumer has caught up."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
            self.deadline = self._loop.time() + self._owner.idle_seconds
            self._owner.watch(self.deadline)

    # what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to write."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            secure = transport.get_extra_info("ssl_object") is not None
            self._poll = select.poll()  # TLS may hold unread session tickets: readable is no sign there
            self._poll.register(sock.fileno(), _HANGUP if secure else _HANGUP | select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Parse; the parser's callbacks fill the exchange."""
        exchange = self._exchange
        if exchange is None:
            self.fail(Fault("it wrote without being asked"))
            return
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            detail = str(exc).split("\n", 1)[0] if isinstance(exc, httptools.HttpParserError) else ""
            reason = self._refused or f"its answer is not HTTP/1.1 ({detail or 'it switches protocols'})"
            self.fail(Fault(reason, remedy="check that an MCP server listens there"))
            return
        if self._complete:
            self._finish(exchange)
            return
        if self._quiet > self._owner.max_head:
            what = "the head of its answer" if not exchange.ready else "the framing of its answer"
            self.fail(Fault(f"{what} is larger than {self._owner.max_head} bytes"))
            return
        if exchange.ready:
            if self._quiet == 0 and not self._paused:
                self.deadline = self._loop.time() + self._owner.idle_seconds
                self._owner.watch(self.deadline)
            exchange.wake()

    def eof_received(self) -> None:
        """The other side will write no more: the proper end of a body without length, else a failure."""
        exchange = self._exchange
        if exchange is None:
            self.fail(Fault("it closed the connection"))
        elif exchange.ready and self._body_to_end:
            exchange.ended = True
            self.fail(Fault("the answer is complete"))
        elif exchange.ready:
            self.fail(Fault("it closed the connection before the end of its answer"))
        else:
            self.fail(Fault("it closed the connection without an answer", remedy="see its log"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        self._poll = None
        detail = f" ({exc.strerror})" if isinstance(exc, OSError) and exc.strerror else ""
        self.fail(Fault(f"the connection broke before the end of its answer{detail}"))
        self._transport = None

    # what the parser tells

    def on_message_begin(self) -> None:
        """A second message in answer to one request is an attack or a bug; it is dropped with the connection."""
        if self._complete:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer (dropped)."""
        exchange = self._exchange
        if exchange is None or self._complete or exchange.ready:
            return
        exchange.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Judge the head."""
        exchange = self._exchange
        if exchange is None or self._complete:
            return
        status = self._parser.get_status_code()
        if status < 100 or status == 101 or status > 599:  # noqa: PLR2004 - RFC 9110 section 15; no protocol was switched
            self._refuse(f"its answer has status {status}")
        if status < 200:  # noqa: PLR2004 - 1xx: RFC 9110 section 15.2
            self._informational = True
            exchange.headers.clear()
            return
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("its answer is not HTTP/1.1")
        framed = self._framed(exchange.headers)
        exchange.status = status
        exchange.ready = True
        self._keep = self._parser.should_keep_alive()
        self._body_to_end = not framed and status not in (204, 304)
        self._quiet = 0
        if self._headless:
            self._keep = False
            self._complete = exchange.ended = True

    def _framed(self, headers: Headers) -> bool:
        """Whether the body's end is marked (RFC 9112 section 6.3). Llhttp refuses contradictions before."""
        size, framed = 0, False
        for name, value in headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                if framed or value.lower() != b"chunked" or self._parser.get_http_version() != "1.1":
                    self._refuse("its answer has a transfer-encoding other than chunked")
                framed = True
        if size > self._owner.max_head:
            self._refuse(f"the head of its answer is larger than {self._owner.max_head} bytes")
        return framed

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        exchange = self._exchange
        if exchange is None or self._complete or not exchange.ready:
            return
        self._quiet = 0
        if exchange.push(body) and not self._paused and self._transport is not None:
            self._paused = True
            self.deadline = inf
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The end of the answer, or of a 1xx one."""
        if self._informational:
            self._informational = False
            return
        exchange = self._exchange
        if exchange is not None:
            self._complete = exchange.ended = True

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        raise ValueError(reason)

    def _finish(self, exchange: PoolExchange) -> None:
        transport = self._transport
        sound = (
            self._keep
            and not self._extra
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )
        if not sound or transport is None:
            self.fail(Fault("the answer is complete"))
            return
        self._exchange = None
        if self._paused:
            self._paused = False
            transport.resume_reading()
        self.deadline = self._loop.time() + self._owner.keep_seconds
        exchange.part(None)
        self._owner.released(self)
        self._owner.watch(self.deadline)
