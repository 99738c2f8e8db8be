"""`subscriptions/listen` on the merged face: one stream of notifications from every upstream that has some."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.naming import resource_server
from fulcrum_mcp.gateway.streams import closing, merge, open_all
from fulcrum_mcp.gateway.wire import Message, WireError, decode_strict, encode, result_message
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["listen_all"]

_ACK: Final = "notifications/subscriptions/acknowledged"
_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
_PATIENCE: Final = 20.0


async def listen_all(
    exchanges: Mapping[str, Exchange], catalogs: Sequence[Catalog], incoming: Incoming, message: Message
) -> Answer:
    """Listen at each upstream for its part of what is wanted; acknowledged once, with what was granted anywhere."""
    wanted = message.params.get("notifications")
    wanted = wanted if isinstance(wanted, dict) else {}
    asked: list[tuple[Exchange, Message]] = []
    for catalog in catalogs:
        part = _part(wanted, catalog, catalogs)
        if part:
            there = message.with_params({**message.params, "notifications": part})
            asked.append((exchanges[catalog.name], there))
    answers = await open_all(exchange.request(replace(incoming, message=there), there) for exchange, there in asked)
    streams = [answer for answer in answers if answer.events is not None]
    return Answer(200, events=_events(message, streams), close=closing(streams))


def _part(wanted: Mapping[str, Any], catalog: Catalog, catalogs: Sequence[Catalog]) -> dict[str, Any]:
    """What of the wanted notifications this upstream can send."""
    part: dict[str, Any] = {key: value for key, value in wanted.items() if value is True}
    for key in ("tools", "prompts", "resources"):
        if key not in catalog.capabilities:
            part.pop(f"{key}ListChanged", None)
    uris = wanted.get("resourceSubscriptions")
    if isinstance(uris, list):
        routes = [resource_server(catalogs, uri) for uri in uris if isinstance(uri, str)]
        mine = [route[1] for route in routes if route is not None and route[0] == catalog.name]
        if mine:
            part["resourceSubscriptions"] = mine
    return part


async def _events(message: Message, streams: Sequence[Answer]) -> AsyncIterator[ServerSentEvent]:
    """First one acknowledgement, then everybody's notifications, then the result."""
    granted: dict[str, Any] = {}
    early: list[ServerSentEvent] = []
    merged = merge(streams)
    coming = _Coming(merged)
    awaited = len(streams)
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    try:
        while awaited:
            event = await coming.next(deadline)
            if event is None:
                break
            acknowledged = _acknowledged(event)
            if acknowledged is None:
                early.append(event)
                continue
            awaited -= 1
            _grant(granted, acknowledged)
        params = {"notifications": granted, "_meta": {_SUBSCRIPTION: message.id}}
        yield ServerSentEvent(encode({"jsonrpc": "2.0", "method": _ACK, "params": params}))
        for event in early:
            if not _is_end(event):
                yield event
        while (event := await coming.next(None)) is not None:
            if not _is_end(event) and _acknowledged(event) is None:
                yield event
        yield ServerSentEvent(
            result_message(message.id, {"resultType": "complete", "_meta": {_SUBSCRIPTION: message.id}})
        )
    finally:
        await coming.stop()
        await merged.aclose()


class _Coming:
    """The next event of a stream, waited for with patience: running out of it does not end the stream."""

    def __init__(self, events: AsyncGenerator[ServerSentEvent, None]) -> None:
        self._events = events
        self._next: asyncio.Future[ServerSentEvent] | None = None

    async def next(self, deadline: float | None) -> ServerSentEvent | None:
        """The next event; None if there is none before the deadline (in the loop's time), or none any more."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait([self._next], timeout=left)
        if not self._next.done():
            return None
        coming, self._next = self._next, None
        try:
            return coming.result()
        except StopAsyncIteration:
            return None

    async def stop(self) -> None:
        """Wait no more."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])


def _grant(granted: dict[str, Any], acknowledged: Mapping[str, Any]) -> None:
    for key, value in acknowledged.items():
        if isinstance(value, list):
            granted.setdefault(key, []).extend(value)
        elif value is True:
            granted[key] = True


def _document(event: ServerSentEvent) -> dict[str, Any]:
    try:
        value, _ = decode_strict(event.data)
    except WireError:
        return {}
    return value if isinstance(value, dict) else {}


def _acknowledged(event: ServerSentEvent) -> Mapping[str, Any] | None:
    document = _document(event) if _ACK.encode() in event.data else {}
    if document.get("method") != _ACK:
        return None
    params = document.get("params")
    granted = params.get("notifications") if isinstance(params, dict) else None
    return granted if isinstance(granted, dict) else {}


def _is_end(event: ServerSentEvent) -> bool:
    """One upstream's stream has ended; the client's goes on with the others."""
    return bool(event.data) and "method" not in _document(event)
