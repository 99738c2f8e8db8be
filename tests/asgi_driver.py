"""Drives an ASGI application as a server would: raw bytes and header lines in, everything it sends kept."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Asgi", "Event", "Exchanged", "HeaderLines", "Stream"]

HANGS: Final = 30.0
"""Seconds after which an answer does not come: no promise, and more than a busy disk keeps a commit waiting."""

HeaderLines = list[tuple[bytes, bytes]]
Received = MutableMapping[str, Any]
App = Callable[[Received, Callable[[], Awaitable[Received]], Callable[[Received], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Event:
    """One Server-Sent Event; `data` as text."""

    data: str
    id: str | None = None
    event: str | None = None
    retry: int | None = None

    @property
    def message(self) -> Any:
        """The JSON-RPC message it carries."""
        return json.loads(self.data)


@dataclass(slots=True)
class Exchanged:
    """A response as the client sees it."""

    status: int = 0
    headers: HeaderLines = field(default_factory=HeaderLines)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name.encode()), None)

    @property
    def events(self) -> list[Event]:
        """The body as Server-Sent Events (empty for another content type)."""
        if self.header("content-type") != "text/event-stream":
            return []
        return [parse_event(text) for text in self.body.decode().split("\n\n") if text.strip("\n")]

    @property
    def message(self) -> Any:
        """The one response: the body, or the last event with data."""
        if self.header("content-type") == "text/event-stream":
            return [event.message for event in self.events if event.data][-1]
        return json.loads(self.body)

    @property
    def code(self) -> int | None:
        """The JSON-RPC error's code, None for a result."""
        error = self.message.get("error")
        return None if error is None else int(error["code"])

    @property
    def result(self) -> Any:
        """The result; fails on an error."""
        assert "result" in self.message, self.message
        return self.message["result"]


def parse_event(text: str) -> Event:
    """HTML Living Standard, "Interpreting an event stream", for line breaks of one kind."""
    fields: dict[str, list[str]] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    retry = fields.get("retry")
    return Event(
        "\n".join(fields.get("data", ())),
        fields["id"][-1] if "id" in fields else None,
        fields["event"][-1] if "event" in fields else None,
        None if retry is None else int(retry[-1]),
    )


class Stream:
    """One request under way. `next_event` waits for what comes; `disconnect` is the client's going."""

    def __init__(self, app: App, scope: Received, chunks: Sequence[bytes]) -> None:
        self.response = Exchanged()
        self._incoming: asyncio.Queue[Received] = asyncio.Queue()
        last = len(chunks) - 1
        for number, chunk in enumerate(chunks):
            self._incoming.put_nowait({"type": "http.request", "body": chunk, "more_body": number < last})
        self._changed = asyncio.Condition()
        self._taken = 0
        self.task = asyncio.ensure_future(app(scope, self._incoming.get, self._take))

    async def _take(self, message: Received) -> None:
        async with self._changed:
            if message["type"] == "http.response.start":
                assert self.response.status == 0, "two responses to one request"
                self.response.status = message["status"]
                self.response.headers = list(message.get("headers", ()))
            else:
                assert self.response.status, "a body before its head"
                self.response.body += message.get("body", b"")
            self._changed.notify_all()

    async def head(self) -> Exchanged:
        """Wait for the response's head."""
        async with asyncio.timeout(HANGS), self._changed:
            await self._changed.wait_for(lambda: self.response.status != 0)
        return self.response

    async def next_event(self) -> Event:
        """Wait for one more event."""
        async with asyncio.timeout(HANGS), self._changed:
            await self._changed.wait_for(lambda: len(self.response.events) > self._taken)
        self._taken += 1
        return self.response.events[self._taken - 1]

    def disconnect(self) -> None:
        """The client closes the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    def lose(self, *, after: int) -> None:
        """The client closes the connection after so many pieces of its body; call it before the first is read."""
        pieces = [self._incoming.get_nowait() for _ in range(self._incoming.qsize())]
        for piece in pieces[:after]:
            self._incoming.put_nowait(piece)
        self.disconnect()

    async def end(self) -> Exchanged:
        """Wait for the end of the response."""
        async with asyncio.timeout(HANGS):
            await self.task
        assert self.response.status, "no response"
        return self.response


class Asgi:
    """Requests to one application."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open: list[Stream] = []

    def open(self, verb: str, path: str, headers: HeaderLines, body: bytes | Sequence[bytes] = b"") -> Stream:
        """Begin a request and go on beside it."""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": verb,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
            "scheme": "http",
        }
        stream = Stream(self._app, scope, [body] if isinstance(body, bytes) else list(body))
        self._open.append(stream)
        return stream

    async def request(
        self, verb: str, path: str, headers: HeaderLines, body: bytes | Sequence[bytes] = b""
    ) -> Exchanged:
        """A whole request and its whole response."""
        stream = self.open(verb, path, headers, body)
        reply = await stream.end()
        self._open.remove(stream)
        return reply

    async def close(self) -> None:
        """End what is still under way."""
        for stream in self._open:
            stream.task.cancel()
        await asyncio.gather(*(stream.task for stream in self._open), return_exceptions=True)
