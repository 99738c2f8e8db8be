"""A proxy before Valkey that knows every message and can stop the world at one of them.

A message is a whole RESP request, however it was cut into packets; several in one write are several messages. What
follows on the same connection waits until one is answered, as in the server. `Steps` says what becomes of a message
before the server has it, and of its answer before the client has it; while it works without `await`, nothing passes.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

from servers.process import HOST, free_port

__all__ = ["Message", "Passing", "StepProxy", "Steps"]

Passing = Literal["whole", "half", "cut"]
"""It goes on as it is; half of it goes on and then nothing more; or the connection is reset instead."""

_RST = struct.pack("ii", 1, 0)
_LONG = 30.0


@dataclass(slots=True)
class Message:
    """One request and what became of it."""

    number: int
    """Counted from 1 over all connections."""
    words: tuple[bytes, ...]
    answer: bytes | None = None
    """What the server said; None: nothing yet."""
    delivered: bool = False
    """The client has been sent the whole answer."""


class Steps(Protocol):
    """Called on the proxy's own loop."""

    async def before(self, message: Message) -> Passing:
        """The server has not got it."""
        ...

    async def after(self, message: Message) -> Passing:
        """The server has done it and answered; nobody has heard that."""
        ...


class StepProxy:
    """Stands between the clients and one server. `messages` are all that were asked, in order."""

    def __init__(self, port: int, steps: Steps) -> None:
        self.port = free_port()
        self.messages: list[Message] = []
        self.under_way = 0
        """Messages that are still on their way, or whose answers are."""
        self._target = port
        self._steps = steps
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"steps-{self.port}", daemon=True)
        self._tasks = set[asyncio.Task[None]]()
        self._server: asyncio.Server | None = None

    def through(self, url: str) -> str:
        """The same URL, by way of this proxy."""
        return urlunsplit(urlsplit(url)._replace(netloc=f"{HOST}:{self.port}"))

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_LONG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_LONG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LONG)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, HOST, self.port)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            answers, server = await asyncio.open_connection(HOST, self._target)
            while True:
                raw, words = await _request(reader)
                message = Message(len(self.messages) + 1, words)
                self.messages.append(message)
                self.under_way += 1
                try:
                    if not await self._pass(message, raw, answers, server, reader, writer):
                        break
                finally:
                    self.under_way -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of them has gone: the other is told so
        finally:
            _reset(writer)
            if server is not None:
                _reset(server)

    async def _pass(
        self,
        message: Message,
        raw: bytes,
        answers: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection goes on."""
        how = await self._steps.before(message)
        if how == "whole":
            server.write(raw)
        elif how == "half":
            server.write(raw[: len(raw) // 2])
        await server.drain()
        if how != "whole":
            return False
        message.answer = answer = await _reply(answers)
        how = await self._steps.after(message)
        if how == "cut":
            return False
        if how == "half":
            client.write(answer[: len(answer) // 2])
            await client.drain()
            await reader.read(1)  # until it has given up
            return False
        message.delivered = not (client.is_closing() or reader.at_eof())
        client.write(answer)
        await client.drain()
        return True


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, tuple[bytes, ...]]:
    """The RESP specification, "Sending commands to a Redis server"."""
    head = await reader.readuntil(b"\r\n")
    assert head[:1] == b"*", head
    pieces, words = [head], list[bytes]()
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        word = await reader.readexactly(int(size[1:]) + 2)
        pieces += (size, word)
        words.append(word[:-2])
    return b"".join(pieces), tuple(words)


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """One RESP 2 answer, as it came."""
    head = await reader.readuntil(b"\r\n")
    size = int(head[1:]) if head[:1] in b"$*" else -1
    if head[:1] == b"$" and size >= 0:
        return head + await reader.readexactly(size + 2)
    if head[:1] == b"*":
        return head + b"".join([await _reply(reader) for _ in range(size)])
    return head


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    transport.abort()
