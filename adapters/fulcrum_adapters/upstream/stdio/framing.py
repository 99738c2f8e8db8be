"""Newline-delimited JSON: one message a line, whatever the reader at the other end takes for a line's end."""

__all__ = ["LineBuffer", "LineTooLong", "frame"]

_SPACES = bytes.maketrans(b"\r\n", b"  ")
_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


class LineTooLong(Exception):
    """A line beyond the limit; the stream cannot be trusted any more."""


def frame(message: bytes) -> bytes:
    """One line for one valid JSON text; the JSON value is unchanged.

    Raw line breaks in valid JSON are white space and become spaces. NEL, LS and PS can only stand in strings; readers
    that split on them would see a second message that nobody judged, so they are written as escapes.
    """
    if b"\n" in message or b"\r" in message:
        message = message.translate(_SPACES)
    if not message.isascii():
        for raw, escaped in _BREAKS:
            if raw in message:
                message = message.replace(raw, escaped)
    return message + b"\n"


class LineBuffer:
    """Cuts chunks into lines; holds at most one unfinished line of `limit` bytes, in time linear to its length."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their ends. Raises `LineTooLong`."""
        if b"\n" not in chunk:
            self._keep(chunk)
            return []
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if self._parts:
            self._keep(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts = []
        self._size = 0
        if any(len(line) > self._limit for line in lines):
            raise LineTooLong
        if rest:
            self._keep(rest)
        return lines

    def flush(self) -> bytes:
        """What stands after the last line's end."""
        rest = b"".join(self._parts)
        self._parts = []
        self._size = 0
        return rest

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise LineTooLong
        self._parts.append(part)
