"""What a stdio upstream answers, in the shape of a Streamable HTTP answer."""

from collections.abc import AsyncIterator, Mapping

from fulcrum_adapters.upstream.stdio.events import EventReader
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["StdioReply"]

_JSON = {"content-type": "application/json"}
_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


class StdioReply:
    """A head with either a body or a stream of events."""

    __slots__ = ("_body", "_reader", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        reader: EventReader | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        kind = _STREAM if reader is not None else _JSON if body else {}
        self.headers: Mapping[str, str] = {**kind, **headers} if headers else kind
        self._body = body
        self._reader = reader

    @property
    def streams(self) -> bool:
        """Whether `events` is to be read."""
        return self._reader is not None

    async def read(self) -> bytes:
        """The whole body; it is there already."""
        return self._body

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """Events as they come. Raises `UpstreamFailed` when the process ends before the answer."""
        assert self._reader is not None, "a body has no events"
        return self._reader

    async def close(self) -> None:
        """Give the stream up. A modern request is cancelled by it, a legacy one goes on."""
        if self._reader is not None:
            self._reader.close()
