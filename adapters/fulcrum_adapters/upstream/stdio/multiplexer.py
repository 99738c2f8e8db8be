"""Many clients' requests over one pipe: every request gets an id and a token of its own, and every answer its old ones.

This is the part that both eras share. A subclass decides where messages go that belong to no request. It must never
give a message to a stream it cannot prove to be the right one.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fulcrum_adapters.upstream.stdio.events import EventReader, EventStream
from fulcrum_adapters.upstream.stdio.process import ServerProcess
from fulcrum_adapters.upstream.stdio.wire import (
    PROGRESS,
    SUBSCRIPTION,
    Message,
    dump,
    members,
    messages,
    scalar,
    with_member,
)
from fulcrum_mcp.errors import UpstreamFailed

__all__ = ["Exchange", "Multiplexer"]


@dataclass(slots=True, eq=False)
class Exchange:
    """One request in flight: what its client calls it, and where its messages go."""

    number: int
    client_id: msgspec.Raw
    token: msgspec.Raw | None
    owner: Hashable
    method: str
    stream: EventStream
    document: Mapping[str, Any]
    cancelled: bool = False
    answer: Message | None = None


class Multiplexer(ABC):
    """Ids, progress tokens and answers of one process. Subclasses route the rest."""

    def __init__(self) -> None:
        self.process: ServerProcess
        self.exchanges: dict[int, Exchange] = {}
        self.strays = 0
        self._number = 0

    def ask(self, message: bytes, document: Mapping[str, Any], owner: Hashable) -> Exchange:
        """Send a request. Raises `UpstreamFailed`, then nothing of it remains."""
        self._number = number = self._number + 1
        request = members(message) if message else members(dump(document))
        client_id = request["id"]
        request["id"] = _raw(number)
        token = self._replace_token(request, document, number)
        stream = self.stream(number)
        exchange = Exchange(number, client_id, token, owner, str(document.get("method")), stream, document)
        self.process.write(dump(request))
        self.exchanges[number] = exchange
        return exchange

    def _replace_token(self, request: Message, document: Mapping[str, Any], number: int) -> msgspec.Raw | None:
        params = document.get("params")
        meta = params.get("_meta") if isinstance(params, Mapping) else None
        if not isinstance(meta, Mapping) or PROGRESS not in meta:
            return None
        token = members(members(request["params"])["_meta"])[PROGRESS]
        with_member(request, ("params", "_meta", PROGRESS), number)
        return token

    def receive(self, line: bytes) -> None:
        """Take a line of the process's output."""
        found = messages(line)
        if not found:
            self.process.words.stray(line)
        for message in found:
            if "method" not in message:
                self._answered(message)
            elif "id" in message:
                self.asked(message)
            else:
                self._notified(message)

    def _answered(self, message: Message) -> None:
        number = scalar(message["id"])
        exchange = self.exchanges.pop(number, None) if isinstance(number, int) else None
        if exchange is None:
            self.unclaimed(number)
            return
        message["id"] = exchange.client_id
        if "result" in message and (exchange.token is not None or exchange.method == "subscriptions/listen"):
            self._restore_echo(message, exchange)
        exchange.answer = message
        exchange.stream.push(dump(message), last=True)
        self.settled(exchange)

    def _restore_echo(self, message: Message, exchange: Exchange) -> None:
        meta = members(members(message["result"]).get("_meta"))
        if exchange.token is not None and scalar(meta.get(PROGRESS)) == exchange.number:
            with_member(message, ("result", "_meta", PROGRESS), exchange.token)
        if scalar(meta.get(SUBSCRIPTION)) in (exchange.number, str(exchange.number)):
            with_member(message, ("result", "_meta", SUBSCRIPTION), exchange.client_id)

    def _notified(self, message: Message) -> None:
        method = scalar(message["method"])
        if method != "notifications/progress":
            self.notified(str(method), message)
            return
        exchange = self._holder(members(message.get("params")).get(PROGRESS))
        if exchange is None or exchange.token is None:
            self.strays += 1
            return
        with_member(message, ("params", PROGRESS), exchange.token)
        exchange.stream.push(dump(message))

    def _holder(self, value: msgspec.Raw | None) -> Exchange | None:
        """The exchange that goes by a number, also where a server made a string of it."""
        number = scalar(value)
        if isinstance(number, str) and number.isdecimal() and len(number) <= 18:  # noqa: PLR2004  # fits 64 bits
            number = int(number)
        return self.exchanges.get(number) if isinstance(number, int) else None

    def ended(self, failure: UpstreamFailed) -> None:
        """The process is gone: everything in flight fails with its last words."""
        exchanges, self.exchanges = self.exchanges, {}
        for exchange in exchanges.values():
            exchange.stream.finish(failure)

    def tell_cancelled(self, exchange: Exchange, params: Message | None = None) -> None:
        """Send `notifications/cancelled` for a request, once; a process that cannot be told is past caring."""
        if exchange.cancelled:
            return
        exchange.cancelled = True
        body: dict[str, Any] = {**(params or {}), "requestId": exchange.number}
        try:
            self.process.write(dump({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": body}))
        except UpstreamFailed:
            self.strays += 1

    @abstractmethod
    def stream(self, number: int) -> EventStream:
        """A new stream for a request."""

    @abstractmethod
    def notified(self, method: str, message: Message) -> None:
        """Route a notification other than progress."""

    @abstractmethod
    def asked(self, message: Message) -> None:
        """Route a request of the server's."""

    def unclaimed(self, number: Hashable) -> None:
        """An answer to nothing in flight."""
        del number
        self.strays += 1

    def settled(self, exchange: Exchange) -> None:  # noqa: B027 - a hook for those who have something to do
        """A request was answered."""

    def closed(self, exchange: Exchange, reader: EventReader) -> None:  # noqa: B027 - same
        """A reader of a request's stream was closed."""


def _raw(number: int) -> msgspec.Raw:
    return msgspec.Raw(str(number).encode())
