"""An upstream's stream that a test feeds while the client reads."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from asgi_driver import Stream
from gateway_rig import Client, with_defaults

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["LiveStream", "answer", "open_get", "open_post", "until"]


class LiveStream:
    """`reply` is what the server answers with; what is pushed comes out of it, until `end` or `fail`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[ServerSentEvent | Exception | None] = asyncio.Queue()
        self.reply = MemoryReply(200, {"content-type": "text/event-stream"}, stream=self._events())

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def push(self, message: object, event_id: str | None = None) -> None:
        """One event; None: a priming event without data."""
        data = b"" if message is None else json.dumps(message).encode()
        self._queue.put_nowait(ServerSentEvent(data, id=event_id))

    def end(self) -> None:
        """The server closes the stream."""
        self._queue.put_nowait(None)

    def fail(self, fault: Exception) -> None:
        """The stream breaks."""
        self._queue.put_nowait(fault)


def answer(request_id: object, **result: Any) -> dict[str, Any]:
    """A tool's result as a response."""
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": [], **result}}


def open_post(client: Client, method: str, params: dict[str, Any], *, request_id: object = 7) -> Stream:
    """Begin a request and go on beside it."""
    message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": client.params(params)}
    headers = with_defaults(client.headers(method, params))
    return client.rig.app.open("POST", client.path, headers, json.dumps(message).encode())


def open_get(client: Client, last: str | None = None) -> Stream:
    """Begin to listen, or to resume after an event."""
    headers = [*client.headers("", {}), ("accept", "text/event-stream")]
    if last is not None:
        headers.append(("last-event-id", last))
    return client.rig.app.open("GET", client.path, with_defaults(headers))


async def until(condition: Callable[[], object], what: str) -> None:
    """Let the loop run until something holds, for half a minute at most."""
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - anything may be the condition
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"not within 30 s: {what}") from None
