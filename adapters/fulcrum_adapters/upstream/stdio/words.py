"""The last words of a process: what an operator needs to see when it fails, and nothing secret."""

from collections import deque
from collections.abc import Callable, Iterable

__all__ = ["LastWords"]

_LINES = 20
_WIDTH = 300
_TOLD = 800
_SECRET = 6


class LastWords:
    """The last lines of stderr, and how much of stdout was not JSON. Configured values are blotted out."""

    __slots__ = ("_lines", "_log", "_partial", "_sample", "_secrets", "noise")

    def __init__(self, secrets: Iterable[str], log: Callable[[str], None] | None) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._secrets = sorted((value for value in secrets if len(value) >= _SECRET), key=len, reverse=True)
        self._log = log
        self._partial = b""
        self._sample = ""
        self.noise = 0

    def feed(self, chunk: bytes) -> None:
        """Take what came on stderr."""
        *lines, rest = (self._partial + chunk).split(b"\n")
        self._partial = rest[: _WIDTH * 8]
        for line in lines:
            self._add(line)

    def flush(self) -> None:
        """Take an unfinished last line too."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""

    def stray(self, line: bytes) -> None:
        """Take a line of stdout that is no message."""
        self.noise += 1
        self._sample = self._clean(line)

    def _add(self, line: bytes) -> None:
        text = self._clean(line)
        if text:
            self._lines.append(text)
            if self._log is not None:
                self._log(text)

    def _clean(self, line: bytes) -> str:
        text = line[: _WIDTH * 8].decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() else " " for c in text)[:_WIDTH].rstrip()

    def lines(self) -> list[str]:
        """Oldest first; a warning stands last when stdout held something else than messages."""
        found = list(self._lines)
        if self.noise:
            found.append(f"warning: {self.noise} lines on stdout were not JSON-RPC, the last: {self._sample!r}")
        return found

    def told(self) -> str:
        """For the end of a message: `; last words: ...`, or how to find out more when there are none."""
        text = " | ".join(self.lines())
        if not text:
            return "; it said nothing on stderr: run its command by hand to see why"
        return f"; last words: {text if len(text) <= _TOLD else '…' + text[-_TOLD:]}"
