"""A server that speaks 2026-07-28 or later: stateless, so one process serves every client.

What no request can be proved to own is dropped, never guessed: the clients are different people.
"""

import asyncio
import time
from collections.abc import Hashable, Mapping
from typing import Any

from fulcrum_adapters.upstream.stdio.events import EventReader, EventStream
from fulcrum_adapters.upstream.stdio.multiplexer import Exchange, Multiplexer
from fulcrum_adapters.upstream.stdio.wire import SUBSCRIPTION, Message, dump, members, with_member
from fulcrum_mcp.errors import UpstreamFailed

__all__ = ["ModernProcess"]

_LISTEN = "subscriptions/listen"
_LEVEL = "io.modelcontextprotocol/logLevel"
_LINGER = 1024


class ModernProcess(Multiplexer):
    """The shared process of one upstream."""

    def __init__(self, stream_limit: int, cancel_grace: float) -> None:
        super().__init__()
        self.used = time.monotonic()
        self._stream_limit = stream_limit
        self._grace = cancel_grace
        self._cancelled: dict[Hashable, None] = {}
        self._recent: dict[tuple[Hashable, bool], float] = {}

    def stream(self, number: int) -> EventStream:
        """A stream that forgets what was read; who does not read loses it."""
        self.used = time.monotonic()
        return EventStream(number, keeps=False, limit=self._stream_limit, on_lag=self._lags)

    def _lags(self, reader: EventReader) -> None:
        reader.fail(
            UpstreamFailed(
                f'upstream "{self.process.name}": the client reads too slowly, more than {self._stream_limit} bytes '
                "wait; the request was cancelled",
                sent=True,
            )
        )

    def closed(self, exchange: Exchange, reader: EventReader) -> None:
        """Closing the stream before its end cancels the request; a late answer finds nobody."""
        del reader
        if self.exchanges.pop(exchange.number, None) is None:
            return
        self.tell_cancelled(exchange)
        exchange.stream.finish()
        if len(self._cancelled) >= _LINGER:
            self._cancelled.pop(next(iter(self._cancelled)))
        self._cancelled[exchange.number] = None
        self._leaves(exchange)

    def _leaves(self, exchange: Exchange) -> None:
        """What comes for a while after a request's end may still be about it."""
        if exchange.method != _LISTEN:
            if len(self._recent) >= _LINGER:
                self._forget_old(time.monotonic())
            self._recent[exchange.owner, _receives(exchange, logs=True)] = time.monotonic() + self._grace

    def unclaimed(self, number: Hashable) -> None:
        """A late answer to a cancelled request is expected; any other is counted."""
        if number in self._cancelled:
            del self._cancelled[number]
        else:
            self.strays += 1

    def settled(self, exchange: Exchange) -> None:
        """The process is in use."""
        self.used = time.monotonic()
        self._leaves(exchange)

    def tell(self, message: bytes, document: Mapping[str, Any], owner: Hashable) -> None:
        """Pass a client's notification on; a cancellation only for the one request of its sender that it names."""
        if document.get("method") != "notifications/cancelled":
            self.process.write(message or dump(document))
            return
        params = document.get("params")
        named = params.get("requestId") if isinstance(params, Mapping) else None
        found = [
            exchange
            for exchange in self.exchanges.values()
            if exchange.owner == owner and _same(exchange.document.get("id"), named)
        ]
        if len(found) == 1:
            self.tell_cancelled(found[0], members(members(message or dump(document)).get("params")))
            asyncio.get_running_loop().call_later(self._grace, self._give_up, found[0])

    def _give_up(self, exchange: Exchange) -> None:
        if self.exchanges.pop(exchange.number, None) is not None:
            exchange.stream.finish()
            self._leaves(exchange)

    def notified(self, method: str, message: Message) -> None:
        """By subscription id, else by the only client it can be for, else to nobody."""
        params = members(message.get("params"))
        if method == "notifications/cancelled":
            self._listening_ended(params, message)
            return
        meta = members(params.get("_meta"))
        if SUBSCRIPTION in meta:
            exchange = self._holder(meta[SUBSCRIPTION])
            if exchange is None or exchange.method != _LISTEN:
                self.strays += 1
                return
            with_member(message, ("params", "_meta", SUBSCRIPTION), exchange.client_id)
            exchange.stream.push(dump(message))
            return
        receiver = self._only_receiver(logs=method == "notifications/message")
        if receiver is None:
            self.strays += 1
        else:
            receiver.stream.push(dump(message))

    def _listening_ended(self, params: Message, message: Message) -> None:
        exchange = self._holder(params.get("requestId"))
        if exchange is None or exchange.method != _LISTEN:
            self.strays += 1
            return
        with_member(message, ("params", "requestId"), exchange.client_id)
        del self.exchanges[exchange.number]
        exchange.stream.push(dump(message), last=True)

    def _only_receiver(self, *, logs: bool) -> Exchange | None:
        """The newest request when all that could be meant have one owner; ended ones count for a while."""
        self._forget_old(time.monotonic())
        living = [exchange for exchange in self.exchanges.values() if _receives(exchange, logs=logs)]
        owners = {exchange.owner for exchange in living}
        owners.update(owner for owner, opted in self._recent if opted or not logs)
        return living[-1] if living and len(owners) == 1 else None

    def _forget_old(self, now: float) -> None:
        self._recent = {who: until for who, until in self._recent.items() if until > now}

    def asked(self, message: Message) -> None:
        """This version knows no requests from servers: refuse, so that the server does not wait."""
        refusal = {"code": -32601, "message": "servers send no requests in this protocol version"}
        try:
            self.process.write(dump({"jsonrpc": "2.0", "id": message["id"], "error": refusal}))
        except UpstreamFailed:
            self.strays += 1


def _receives(exchange: Exchange, *, logs: bool) -> bool:
    if exchange.method == _LISTEN:
        return False
    if not logs:
        return True
    params = exchange.document.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    return isinstance(meta, Mapping) and _LEVEL in meta


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
