"""Writing an answer to an ASGI client: one body or Server-Sent Events; and noticing that the client has gone."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Final

from fulcrum_mcp.gateway.incoming import Answer
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["Receive", "Send", "event_text", "send_answer", "send_body", "watch"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_WATCH_AFTER: Final = 0.05
"""Seconds, once to twice; most answers come sooner, and watching costs a task."""


def event_text(event: ServerSentEvent) -> bytes:
    """One event as text (HTML Living Standard, "Server-sent events")."""
    if event.comment:
        return b":" + event.data.replace(b"\n", b"\n:") + b"\n\n"
    lines: list[bytes] = []
    if event.event is not None:
        lines.append(b"event: " + event.event.encode())
    elif event.data:
        lines.append(b"event: message")
    if event.id is not None:
        lines.append(b"id: " + event.id.encode())
    if event.retry is not None:
        lines.append(b"retry: %d" % event.retry)
    if b"\n" in event.data or b"\r" in event.data:
        lines.extend(b"data: " + line for line in event.data.splitlines())
    else:
        lines.append(b"data: " + event.data)
    return b"\n".join(lines) + b"\n\n"


async def send_body(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """A whole response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    if answer.session is not None:
        headers.append((b"mcp-session-id", answer.session.token.encode()))
    if answer.timings:
        stages = ", ".join(f"{name};dur={micros / 1000:.3f}" for name, micros in answer.timings)
        headers.append((b"server-timing", stages.encode()))
    return headers


async def send_answer(send: Send, answer: Answer) -> None:
    """Write an answer to its end; closes its stream whatever happens."""
    headers = _headers(answer)
    if answer.events is None:
        if answer.body:
            headers.append(_JSON)
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send_body(send, answer.status, answer.body, headers)
        return
    headers.extend(
        (
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
        )
    )
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for event in answer.events:
            await send({"type": "http.response.body", "body": event_text(event), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        if answer.close is not None:
            await answer.close()


class Watch:
    """Cancels the request's task once the client has gone. One timer looks after all that take more than a moment."""

    __slots__ = ("_receive", "_task", "_watcher", "gone")

    _young: ClassVar[set["Watch"]] = set()
    _old: ClassVar[set["Watch"]] = set()
    _ticking: ClassVar[asyncio.AbstractEventLoop | None] = None
    """The loop whose timer is under way; one that has ended ticks no more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False
        loop = asyncio.get_running_loop()
        if Watch._ticking is not loop:
            Watch._ticking, Watch._young, Watch._old = loop, set(), set()
            loop.call_later(_WATCH_AFTER, Watch._tick)
        Watch._young.add(self)

    @classmethod
    def _tick(cls) -> None:
        loop = asyncio.get_running_loop()
        for watch in cls._old:
            watch.begin(loop)
        cls._old, cls._young = cls._young, set()
        cls._ticking = loop if cls._old else None
        if cls._old:
            loop.call_later(_WATCH_AFTER, cls._tick)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The request takes longer: look at its client from now on."""
        self._watcher = loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        """The request is done, or its client's going no longer matters."""
        Watch._young.discard(self)
        Watch._old.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()


def watch(receive: Receive) -> Watch:
    """Begin to watch the client of the current task's request."""
    return Watch(receive)
