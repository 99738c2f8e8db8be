"""Server-sent events, parsed as bytes arrive (WHATWG HTML, section 9.2.6 "Interpreting an event stream").

Data stays bytes: a UTF-8 sequence cut by a chunk boundary is whole again before anyone decodes it. Two steps beyond the
standard, for a relay: comments are handed on, and so is a block that has an id or retry but no data.
"""

from fulcrum_mcp.ports import ServerSentEvent

from .fault import Fault

__all__ = ["EventParser"]

_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Feed it chunks, get events. An event (or a line) beyond `limit` bytes is a `Fault`."""

    __slots__ = ("_cr", "_data", "_event", "_id", "_limit", "_line", "_retry", "_size", "_start")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: list[bytes] = []
        self._size = 0
        self._cr = False
        self._start = True
        self._data: list[bytes] = []
        self._id: str | None = None
        self._event: str | None = None
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Events that these bytes complete."""
        if self._cr and chunk:  # the line ended with CR; a LF that follows belongs to it
            self._cr = False
            if chunk[0] == 10:  # noqa: PLR2004 - LF
                chunk = chunk[1:]
        if not chunk:
            return []
        self._size += len(chunk)
        events: list[ServerSentEvent] = []
        lines = chunk.splitlines(keepends=True)
        if self._line:
            if len(lines) == 1 and chunk[-1] not in b"\r\n":
                self._line.append(chunk)
                self._check()
                return events
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
        last = lines[-1]
        if last[-1] not in b"\r\n":
            self._line.append(lines.pop())
        elif last[-1] == 13:  # noqa: PLR2004 - CR
            self._cr = True
        for line in lines:
            self._take(line.rstrip(b"\r\n"), events)
        self._check()
        return events

    def end(self) -> None:
        """The stream ended; raises `Fault` when it did so within an event that carries data."""
        if self._data or b"".join(self._line).removeprefix(_BOM).startswith(b"data"):
            raise Fault("its event stream ended within an event")

    def _check(self) -> None:
        if self._size > self._limit:
            raise Fault(f"an event is larger than {self._limit} bytes")

    def _take(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._start:
            self._start = False
            if line.startswith(_BOM):
                line = line[3:]
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif not name:
            events.append(ServerSentEvent(value, comment=True))
            if not self._data:
                self._size = sum(map(len, self._line))
        else:
            self._field(name, value)

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 16:  # noqa: PLR2004 - longer is no time
            self._retry = int(value)

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        data = self._data
        if data or self._id is not None or self._retry is not None:
            body = data[0] if len(data) == 1 else b"\n".join(data)
            events.append(ServerSentEvent(body, self._id, self._event, self._retry))
            self._data = []
        self._id = self._event = self._retry = None
        self._size = sum(map(len, self._line))
