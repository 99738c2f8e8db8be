"""What takes long says how far it is: one line on a terminal's standard error, written over, and gone in the end.

Elsewhere, in a file or a pipe, it says nothing.
"""

import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TypeVar

from fulcrum_mcp.cli.output import bar, clean

__all__ = ["Progress", "progress"]

T = TypeVar("T")
_EVERY = 4096
_CLEAR = "\r\x1b[K"


class Progress:
    """The line. Made by `progress`, which takes it away."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._dirty = False

    def show(self, text: str) -> None:
        """This is what happens now."""
        if self._shown:
            sys.stderr.write(f"{_CLEAR}{clean(text)}")
            sys.stderr.flush()
            self._dirty = True

    def count(self, items: Iterable[T], total: int | None = None) -> Generator[T, None, None]:
        """The same items; now and then it shows how many have been taken."""
        for number, item in enumerate(items, 1):
            yield item
            if number % _EVERY == 0:
                of = "" if total is None else f" {bar(number, total)} of {total:,}"
                self.show(f"{number:,}{of}")

    def clear(self) -> None:
        """Take the line away. Idempotent."""
        if self._dirty:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
        self._dirty = False


@contextmanager
def progress() -> Generator[Progress, None, None]:
    """For as long as something takes."""
    line = Progress(shown=sys.stderr.isatty())
    try:
        yield line
    finally:
        line.clear()
