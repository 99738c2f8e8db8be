"""uvicorn's HTTP protocol with bounds that hold before any key: on a request's head and trailers, and on its time."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD", "PATIENCE", "BoundedHttp"]

MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers."""

PATIENCE: Final = 60.0
"""Seconds for a request to arrive, and for a new connection to begin one."""

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain\r\ncontent-length: 40\r\nconnection: close\r\n\r\n"
    b"the request's head is larger than 64 KiB"
)


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request has no end to its head."""

    _head = 0
    _in_head = True
    _moved = False
    _since: float | None = None
    """When the request that is still coming began, or the connection that has sent none."""
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client: its first request is awaited."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._late = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close a connection whose request does not come to its end."""
        since, now = self._since, self.loop.time()
        if since is not None and now - since >= PATIENCE:
            self.transport.close()
            return
        self._late = self.loop.call_later(PATIENCE if since is None else since + PATIENCE - now, self._look)

    def on_message_begin(self) -> None:
        """A new request begins."""
        self._head = 0
        self._in_head = True
        self._since = self.loop.time()
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here, whole."""
        self._since = None
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        self._moved = False
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_REFUSAL)
                self.transport.close()
        elif self._since is not None:  # framing and trailers of a body: the server would keep any amount of them
            self._head = 0 if self._moved else self._head + len(data)
            if self._head > MAX_HEAD:
                self.transport.close()
