"""Which worker of a host a handle belongs to: sessions, request states and tasks live in the one that made them.

The number only says where to look. Whoever serves the request checks everything again.
"""

import zlib
from dataclasses import dataclass

__all__ = ["Seat"]


@dataclass(frozen=True, slots=True)
class Seat:
    """One worker's place among those of its host, counted from 1."""

    number: int = 1
    count: int = 1

    @property
    def shared(self) -> bool:
        """There are siblings."""
        return self.count > 1

    def elsewhere(self, stated: object, handle: str) -> int | None:
        """The sibling that keeps a handle; None: this worker does.

        A handle of another host, or of a time with more workers, falls to the same worker each time: two must never
        keep one session.
        """
        if self.count == 1:
            return None
        named = type(stated) is int and 0 < stated <= self.count
        home = stated if named else zlib.crc32(handle.encode()) % self.count + 1
        return home if isinstance(home, int) and home != self.number else None
