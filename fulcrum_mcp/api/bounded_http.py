"""uvicorn's HTTP protocol with a bound on a request's head: its parser would keep any amount of it, before any key."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD", "BoundedHttp"]

MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers."""

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain\r\ncontent-length: 40\r\nconnection: close\r\n\r\n"
    b"the request's head is larger than 64 KiB"
)


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request has no end to its head."""

    _head = 0
    _in_head = True

    def on_message_begin(self) -> None:
        """A new request begins."""
        self._head = 0
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_REFUSAL)
                self.transport.close()
