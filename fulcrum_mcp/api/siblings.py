"""One request handed over to the worker beside this one that it belongs to, as raw HTTP over a unix socket.

The owner judges it as if it had come to itself: credentials, Host and Origin are in the headers and are checked again;
the address of the client goes along, because who needs no key depends on it. The socket's folder is private to the
user we run as. What was handed over is never handed on. The body follows only when the owner has begun with the head
(`100 Continue`): one that is silent for too long never gets it, so that what was given up is not done later.
"""

import asyncio
import contextlib
import errno
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import httptools
import structlog

from fulcrum_mcp.api.mcp.writer import Receive, Send, send_body, watch
from fulcrum_mcp.gateway.seat import Seat

__all__ = ["RELAYED", "App", "Relayed", "RelayedFace", "SiblingLost", "SiblingSilent", "Siblings"]

_log = structlog.get_logger("fulcrum.siblings")

RELAYED: Final = "fulcrum.relayed"
"""The member of an ASGI scope that says that a sibling has handed the request over."""
_HEADER: Final = b"x-fulcrum-relayed"
_FACTS: Final = re.compile(rb"(\S+) (\d{1,5}) ([01])\Z")
_PATIENCE: Final = 5.0
"""Seconds for a sibling to take a request: more than it takes to replace one."""
_PROBE: Final = 2.5
"""The same when several are asked: the tasks of one that is being replaced are gone anyway."""
_LINE_FULL: Final = (errno.EAGAIN, errno.ENOTCONN)
"""What uvloop and asyncio say when a socket has no more room for those who wait."""
_READ: Final = 65_536
_NOT_MINE: Final = 421
_HOP: Final = frozenset(
    {b"connection", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_WHOLE: Final = 200

App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Relayed(NamedTuple):
    """What a sibling said with the request it handed over."""

    only_if_known: bool
    """It asks several; whoever does not know the task answers 421."""


class SiblingLost(Exception):
    """The sibling took the request and ended before it answered."""


class SiblingSilent(Exception):
    """The sibling is there, has not begun with the request in time, and will not get its body."""


class _Reply:
    """Callbacks of the parser: what the sibling answers, as ASGI messages."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.messages: list[dict[str, Any]] = []
        self.status = 0
        self.taken = False
        """It is being served."""
        self.complete = False
        self._headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.taken = True
        status = self.parser.get_status_code()
        if status < _WHOLE:
            return
        self.status = status
        headers = [pair for pair in self._headers if pair[0] not in _HOP]
        self.messages.append({"type": "http.response.start", "status": status, "headers": headers})

    def on_body(self, body: bytes) -> None:
        self.messages.append({"type": "http.response.body", "body": body, "more_body": True})

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self.messages.append({"type": "http.response.body", "body": b""})


class Siblings:
    """The other workers of this host."""

    def __init__(self, seat: Seat, folder: Path) -> None:
        """`folder` holds `<number>.sock` of each worker."""
        self.seat = seat
        self._folder = folder
        self.others = tuple(number for number in range(1, seat.count + 1) if number != seat.number)

    async def relay(
        self,
        number: int,
        scope: MutableMapping[str, Any],
        body: bytes,
        receive: Receive,
        send: Send,
        *,
        only_if_known: bool = False,
    ) -> bool:
        """Let a sibling serve the request; False when it is not there (or does not know the task): nothing was sent.

        When the client goes, the sibling sees it go. Raises `SiblingLost`, `SiblingSilent`.
        """
        watcher = watch(receive)
        try:
            head = _head(scope, len(body), only_if_known=only_if_known)
            return await self._relay(number, head, body, send, _PROBE if only_if_known else _PATIENCE)
        except asyncio.CancelledError:
            if not watcher.gone:
                raise
            return True
        finally:
            watcher.stop()

    async def ask(self, number: int, path: str) -> bytes | None:
        """What a sibling answers to a question of ours; None when it is not there, silent, or refuses."""
        said: list[MutableMapping[str, Any]] = []

        async def take(message: MutableMapping[str, Any]) -> None:
            said.append(message)

        asked = {"method": "GET", "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"sibling")]}
        head = _head(asked, 0, only_if_known=False)
        try:
            async with asyncio.timeout(_PROBE):
                there = await self._relay(number, head, b"", take, _PROBE)
        except (SiblingLost, SiblingSilent, TimeoutError):
            return None
        if not there or said[0]["status"] != _WHOLE or said[-1].get("more_body", False):
            return None  # also one that was cut off
        return b"".join(message.get("body", b"") for message in said)

    async def _relay(self, number: int, head: bytes, body: bytes, send: Send, patience: float) -> bool:
        reply = _Reply()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_unix_connection(str(self._folder / f"{number}.sock"))
                writer.write(head)
                while not reply.taken:
                    await _read(reader, reply)
            if not reply.status:
                writer.write(body)
            _log.debug("handed over", sibling=number)
            return await _pass(reader, reply, send)
        except (OSError, EOFError, httptools.HttpParserError) as fault:  # TimeoutError is an OSError
            if not reply.taken:
                if isinstance(fault, TimeoutError) or getattr(fault, "errno", None) in _LINE_FULL:
                    _log.warning("a sibling is silent", sibling=number)
                    raise SiblingSilent from fault
                return False
            _log.warning("a sibling ended while it served a request", sibling=number)
            if reply.status:
                return True  # what was begun cannot be ended well: the client sees its answer break off
            raise SiblingLost from fault
        finally:
            if writer is not None:
                writer.close()


async def _pass(reader: asyncio.StreamReader, reply: _Reply, send: Send) -> bool:
    """The answer of a sibling that serves the request, as it comes; False when it has no such task."""
    while not reply.status:
        await _read(reader, reply)
    if reply.status == _NOT_MINE:
        return False
    while True:
        messages, reply.messages = reply.messages, []
        for message in messages:
            await send(message)
        if reply.complete:
            return True
        await _read(reader, reply)


async def _read(reader: asyncio.StreamReader, reply: _Reply) -> None:
    data = await reader.read(_READ)
    if not data:
        raise EOFError
    reply.parser.feed_data(data)


def _head(scope: MutableMapping[str, Any], length: int, *, only_if_known: bool) -> bytes:
    client = scope.get("client") or ("-", 0)
    path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    dropped = _HOP | {_HEADER, b"content-length"}
    lines = [scope["method"].encode() + b" " + path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in scope["headers"] if name not in dropped]
    lines += [
        b"content-length: %d" % length,
        b"connection: close",
        b"expect: 100-continue",  # its answer says that somebody serves the request, long before the request's own does
        _HEADER + f": {client[0]} {client[1]} {int(only_if_known)}".encode(),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class RelayedFace:
    """ASGI, on the socket that only siblings reach: the request as it came to the one that handed it over."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        said = [value for name, value in scope["headers"] if name == _HEADER]
        found = _FACTS.match(said[0]) if len(said) == 1 else None
        if found is None:
            await send_body(send, 400, b"only the workers of this gateway talk here", [])
            return
        host = found[1].decode("latin-1")
        scope = {
            **scope,
            "client": None if host == "-" else (host, int(found[2])),
            "headers": [pair for pair in scope["headers"] if pair[0] != _HEADER],
            RELAYED: Relayed(found[3] == b"1"),
        }
        first: list[MutableMapping[str, Any]] = [await receive()]  # which also says `100 Continue`

        async def rest() -> MutableMapping[str, Any]:
            return first.pop() if first else await receive()

        with contextlib.suppress(ConnectionError):
            await self._app(scope, rest, send)
