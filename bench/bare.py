"""The bare hop, what every ratio is a multiple of: raw ASGI on uvicorn and a keep-alive pool, no parse, no judgement.

Its pool is its own, so that the measure stays the same when the gateway's changes.
"""

import argparse
import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvicorn

__all__ = ["Bare", "main"]

_DROPPED = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key"})


class _Exchange(asyncio.Protocol):
    """One upstream connection; one request at a time."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, list[tuple[bytes, bytes]], bytes]] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send(self, request: bytes) -> asyncio.Future[tuple[int, list[tuple[bytes, bytes]], bytes]]:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._body = [], []
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _DROPPED:
            self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._answer is not None
        self.usable = self._parser.should_keep_alive()
        if not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the upstream closed the connection"))


class Bare:
    """The ASGI application."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._start = f"POST {parts.path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n".encode()
        self._idle: list[_Exchange] = []

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        lines = [self._start]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in scope["headers"] if name not in _DROPPED]
        lines.append(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        exchange = await self._connection()
        status, headers, answer = await exchange.send(b"".join(lines))
        if exchange.usable:
            self._idle.append(exchange)
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _connection(self) -> _Exchange:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.usable:
                return exchange
        _, exchange = await asyncio.get_running_loop().create_connection(_Exchange, self._host, self._port)
        return exchange


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bare", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    options = parser.parse_args()
    application: Any = Bare(options.upstream)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(
            application,
            host="127.0.0.1",
            port=options.port,
            access_log=False,
            log_level="warning",
            lifespan="off",
            server_header=False,
            date_header=False,
        )


if __name__ == "__main__":
    main()
