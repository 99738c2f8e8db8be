"""The stdio face: one client on standard input and output, one governed server behind it (`fulcrum wrap`).

One JSON-RPC message a line. Nothing but messages is ever written to standard output.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from fulcrum_mcp.api.mcp.incoming import incoming_of
from fulcrum_mcp.api.mcp.ladder import Era, classify
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import FulcrumError
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Answer
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.gateway.wire import Message, WireError, error_message, parse_message

__all__ = ["StdioFace"]

_log = structlog.get_logger("fulcrum.stdio")

_INTERNAL: Final = -32603
_MAX_OPEN: Final = 1000
_LAST_WORDS: Final = 5.0
"""Seconds that requests under way may still take after the client has closed its side."""


class StdioFace:
    """Serves lines from `reader` until its end. `write` takes one line without its line break."""

    def __init__(
        self, face: SingleFace, principal: Principal, reader: asyncio.StreamReader, write: Callable[[bytes], None]
    ) -> None:
        self._face = face
        self._principal = principal
        self._reader = reader
        self._write = write
        self._session: Session | None = None
        self._era: Era | None = None
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._streams: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until the client closes its side; then what is under way may finish for a moment. Cancelled: at once."""
        try:
            await self._read()
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()), timeout=_LAST_WORDS)
        finally:
            left = (*self._tasks.values(), *self._streams)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                line = end.partial
                if not line.strip():
                    return
            except asyncio.LimitOverrunError:
                self._write(error_message(None, -32600, "Invalid Request: the message is too large"))
                await self._skip_line()
                continue
            if line.strip():
                await self._take(line.strip())

    async def _skip_line(self) -> None:
        """Throw away the rest of a line that is too long, piece by piece."""
        while True:
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as over:
                await self._reader.readexactly(over.consumed)
            except asyncio.IncompleteReadError:
                return
            else:
                return

    async def _take(self, line: bytes) -> None:
        try:
            message = parse_message(line)
            era = classify(message, None)
        except WireError as fault:
            self._write(error_message(fault.request_id, fault.code, fault.message, fault.data))
            return
        if self._session is not None and not era.modern:
            era = Era(modern=False, version=self._session.peers[self._face.exchange.name].version)
        elif message.kind != "request" and self._era is not None:
            era = self._era
        self._era = era
        if message.kind == "request":
            if message.id in self._tasks or len(self._tasks) >= _MAX_OPEN:
                self._write(error_message(message.id, -32600, "Invalid Request: a request with this id is under way"))
                return
            task = asyncio.create_task(self._answer(message, era))
            self._tasks[message.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(message.id, None))
            if message.method == "initialize":
                await asyncio.wait([task])
            return
        if era.modern and message.method == "notifications/cancelled":
            named = message.params.get("requestId")
            found = self._tasks.get(named) if isinstance(named, str | int) else None
            cancelled = None if isinstance(named, bool) else found
            if cancelled is not None:
                cancelled.cancel()
            return
        await self._answer(message, era)

    async def _answer(self, message: Message, era: Era) -> None:
        try:
            incoming = incoming_of(
                "POST",
                self._principal,
                message,
                era,
                headers=_headers(message, era),
                values={},
                names={},
                session=None if era.modern else self._session,
                over_http=False,
            )
            answer = await self._face.post(incoming)
            if answer.session is not None:
                self._session = answer.session
            await self._send(message, answer)
            if message.method == "notifications/initialized" and self._session is not None:
                self._listen(era)
        except WireError as fault:
            self._write(error_message(fault.request_id, fault.code, fault.message, fault.data))
        except FulcrumError as fault:
            self._refuse(message, str(fault))
        except Exception:  # noqa: BLE001 - the last resort: one bad message must not end the client's session
            error_id = new_id()
            _log.exception("message failed", error_id=error_id)
            self._refuse(message, f"internal error {error_id}; the gateway's log knows it")

    def _refuse(self, message: Message, text: str) -> None:
        if message.kind == "request":
            self._write(error_message(message.id, _INTERNAL, text))

    async def _send(self, message: Message, answer: Answer) -> None:
        if answer.events is None:
            if answer.body and message.kind == "request":
                self._write(answer.body)
            return
        try:
            async for event in answer.events:
                if event.data and not event.comment:
                    self._write(event.data)
        finally:
            if answer.close is not None:
                await answer.close()

    def _listen(self, era: Era) -> None:
        """Relay what the server sends outside of any request."""
        task = asyncio.create_task(self._relay(era))
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def _relay(self, era: Era) -> None:
        incoming = incoming_of(
            "GET",
            self._principal,
            None,
            era,
            headers=[(b"accept", b"text/event-stream")],
            values={},
            names={},
            session=self._session,
            over_http=False,
        )
        answer = await self._face.get(incoming)
        if answer.events is not None:
            await self._send(Message({}, b"", "notification"), answer)


def _headers(message: Message, era: Era) -> list[tuple[bytes, bytes]]:
    """What an HTTP client would have sent along."""
    headers = [(b"accept", b"application/json, text/event-stream")]
    if era.version:
        headers.append((b"mcp-protocol-version", era.version.encode()))
    if era.modern and message.method:
        headers.append((b"mcp-method", message.method.encode()))
    return headers
