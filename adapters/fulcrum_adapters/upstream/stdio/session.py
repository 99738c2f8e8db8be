"""One legacy client's session: a process of its own, because the handshake made it that client's.

Closing a stream cancels nothing: the request goes on, and its messages are kept for `Last-Event-ID`. Ids of the
server's own requests pass unchanged; only answers to requests it made are let through.
"""

import asyncio
import time
from collections.abc import Hashable, Mapping
from typing import Any

from fulcrum_adapters.upstream.stdio.config import StdioConfig
from fulcrum_adapters.upstream.stdio.events import EventReader, EventStream
from fulcrum_adapters.upstream.stdio.multiplexer import Exchange, Multiplexer
from fulcrum_adapters.upstream.stdio.wire import Message, dump, members, scalar
from fulcrum_mcp.errors import UpstreamFailed

__all__ = ["PRIMED", "Session"]

PRIMED = "2025-11-25"
"""From this version on a stream opens with an empty event that carries an id."""

_STREAMS = 64
_QUESTIONS = 1024
_READERS = 4
_RETRY_MS = 1000
_UNRELATED = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
)


class Session(Multiplexer):
    """Requests, the GET stream, and the log of both. `used` is a monotonic time."""

    def __init__(self, session_id: str, owner: Hashable, config: StdioConfig) -> None:
        super().__init__()
        self.id = session_id
        self.owner = owner
        self.version = ""
        self.initialized = False
        self.used = time.monotonic()
        self._config = config
        self._kept = 0
        self._streams: dict[int, EventStream] = {}
        self._lagging: set[EventReader] = set()
        self._stall: asyncio.TimerHandle | None = None
        self._questions: dict[Hashable, EventStream] = {}
        self._standing = self.stream(0)
        self._delivered = 0

    @property
    def busy(self) -> bool:
        """Whether somebody listens to it now."""
        return bool(self._standing.readers) or any(exchange.stream.readers for exchange in self.exchanges.values())

    def stream(self, number: int) -> EventStream:
        """A stream that can be resumed."""
        self.used = time.monotonic()
        stream = EventStream(
            number, keeps=True, limit=self._config.stream_limit, on_lag=self._lags, on_push=self._stored
        )
        self._streams[number] = stream
        return stream

    def ask(self, message: bytes, document: Mapping[str, Any], owner: Hashable) -> Exchange:
        """Send a request, unless too many are unanswered: nothing but an answer or the session's end removes one."""
        if len(self.exchanges) >= self._config.max_in_flight:
            raise UpstreamFailed(
                f'upstream "{self.process.name}": {len(self.exchanges)} requests of this session are unanswered; '
                "cancel some or end the session",
                sent=False,
            )
        return super().ask(message, document, owner)

    def receive(self, line: bytes) -> None:
        """Take a line of the process's output."""
        self.used = time.monotonic()
        super().receive(line)

    def settled(self, exchange: Exchange) -> None:
        """An answer to `initialize` fixes the version of the session; a refusal ends it."""
        if exchange.method != "initialize" or exchange.answer is None:
            return
        if "result" not in exchange.answer:
            if not self.initialized:
                self.process.stop_soon()
        else:
            self.initialized = True
            self.version = str(scalar(members(exchange.answer["result"]).get("protocolVersion")) or self.version)

    def reads(self, exchange: Exchange) -> EventReader:
        """The first reader of a request's stream."""
        return self._watched(exchange.stream.read(0, lambda reader: self.closed(exchange, reader)))

    def closed(self, exchange: Exchange, reader: EventReader) -> None:
        """The request goes on; only who leaves before `initialize` was answered can never come back."""
        self._caught_up(reader)
        if exchange.method == "initialize" and exchange.answer is None and not self.initialized:
            self.process.stop_soon()
        elif self._kept > self._config.replay_limit:
            self._trim()

    def prime(self, reader: EventReader) -> None:
        """Let a stream open with its priming event, where the version has it."""
        if self.version >= PRIMED:
            reader.priming = True
            reader.retry = _RETRY_MS

    def stand(self) -> EventReader | None:
        """The GET stream, from where its last reader left it; None while it has one."""
        if self._standing.readers:
            return None
        reader = self._watched(self._standing.read(self._delivered, self._left))
        self.prime(reader)
        return reader

    def resume(self, event_id: str) -> EventReader | None:
        """What followed an event on its own stream; None for an id that this session does not know."""
        number, _, place = event_id.partition("-")
        if not (number.isdecimal() and place.isdecimal() and len(number) + len(place) < _STREAMS):
            return None
        stream = self._streams.get(int(number))
        if stream is None or int(place) > stream.end or len(stream.readers) >= _READERS:
            return None
        if stream is self._standing:
            for reader in tuple(stream.readers):
                reader.close()
            return self._watched(stream.read(int(place), self._left))
        return self._watched(stream.read(int(place), self._caught_up))

    def _watched(self, reader: EventReader) -> EventReader:
        self.used = time.monotonic()
        reader.on_read = self._has_read
        return reader

    def _left(self, reader: EventReader) -> None:
        self._delivered = max(self._delivered, reader.place)
        self._caught_up(reader)

    def drop(self, stream: EventStream) -> None:
        """Forget a stream that nobody can resume."""
        if self._streams.pop(stream.number, None) is not None:
            self._kept -= stream.kept

    def tell(self, message: bytes, document: Mapping[str, Any]) -> None:
        """Pass a client's notification or answer on."""
        self.used = time.monotonic()
        text = message or dump(document)
        if "method" not in document:
            if self._questions.pop(document.get("id"), None) is None:
                self.strays += 1
                return
        elif document["method"] == "notifications/cancelled":
            self._cancel(members(members(text).get("params")))
            return
        self.process.write(text)

    def _cancel(self, params: Message) -> None:
        named = scalar(params.get("requestId"))
        for exchange in reversed(self.exchanges.values()):
            if named is not None and scalar(exchange.client_id) == named:
                self.tell_cancelled(exchange, params)
                asyncio.get_running_loop().call_later(self._config.cancel_grace, self._give_up, exchange)
                return

    def _give_up(self, exchange: Exchange) -> None:
        if self.exchanges.pop(exchange.number, None) is not None:
            exchange.stream.finish()

    def notified(self, method: str, message: Message) -> None:
        """To the stream of the request it speaks of, else to the likeliest."""
        stream = None
        if method == "notifications/cancelled":
            stream = self._questions.pop(scalar(members(message.get("params")).get("requestId")), None)
        elif method in _UNRELATED and self._standing.readers:
            stream = self._standing
        if stream is None or stream.done:
            stream = self._likeliest()
        stream.push(dump(message))

    def asked(self, message: Message) -> None:
        """A request of the server's: to the likeliest stream, and its answer is awaited."""
        stream = self._likeliest()
        if len(self._questions) >= _QUESTIONS:
            self._questions.pop(next(iter(self._questions)))
        self._questions[scalar(message["id"])] = stream
        stream.push(dump(message))

    def _likeliest(self) -> EventStream:
        """The only request that is read; else the open GET stream; else the newest request; else for the next GET."""
        active = [exchange.stream for exchange in self.exchanges.values() if not exchange.cancelled]
        heard = [stream for stream in active if stream.readers]
        if len(heard) == 1:
            return heard[0]
        if self._standing.readers:
            return self._standing
        return heard[-1] if heard else active[-1] if active else self._standing

    def _stored(self, size: int) -> None:
        self._kept += size
        if self._kept > self._config.replay_limit or len(self._streams) > _STREAMS:
            self._trim()

    def _trim(self) -> None:
        for stream in tuple(self._streams.values()):
            idle = stream.done and not stream.readers
            if idle and (len(self._streams) > _STREAMS or self._kept > self._config.replay_limit):
                self.drop(stream)
        for stream in self._streams.values():
            while self._kept > self._config.replay_limit:
                freed = stream.trim()
                if not freed:
                    break
                self._kept -= freed

    def _lags(self, reader: EventReader) -> None:
        """A slow client holds up its own process for a while, then loses the stream."""
        self._lagging.add(reader)
        self.process.pause()
        if self._stall is None:
            self._stall = asyncio.get_running_loop().call_later(self._config.stall_timeout, self._stalled)

    def _has_read(self, reader: EventReader) -> None:
        self.used = time.monotonic()
        if reader in self._lagging and reader.lag <= self._config.stream_limit // 2:
            self._caught_up(reader)

    def _caught_up(self, reader: EventReader) -> None:
        self._lagging.discard(reader)
        if not self._lagging and self._stall is not None:
            self._stall.cancel()
            self._stall = None
            self.process.resume()

    def _stalled(self) -> None:
        failure = UpstreamFailed(
            f'upstream "{self.process.name}": the client has not read its stream for {self._config.stall_timeout:g} s; '
            "resume it with Last-Event-ID",
            sent=True,
        )
        for reader in tuple(self._lagging):
            reader.fail(failure)

    def ended(self, failure: UpstreamFailed) -> None:
        """The process is gone, and the session with it."""
        super().ended(failure)
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._standing.finish(None if self.process.wanted else failure)
