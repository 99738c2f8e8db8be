"""A fault that lasts is said once, not at every try.

At a start most parts are not there for a moment; that is no fault, and is not said at all.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Complaint"]

_PATIENCE: Final = 1.0
_AGAIN: Final = 60.0


class Complaint:
    """One for each thing that is tried again and again. Not for several threads."""

    def __init__(
        self, patience: float = _PATIENCE, again: float = _AGAIN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`patience`: seconds a fault must last to be said; `again`: after which it is repeated while it lasts."""
        self._patience = patience
        self._again = again
        self._clock = clock
        self._since: float | None = None
        self._said_at = 0.0
        self._said: set[str] = set()

    def due(self, reason: str) -> bool:
        """It failed for this reason: is that to be said now?"""
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since < self._patience:
            return False
        if self._said and now - self._said_at >= self._again:
            self._said.clear()
        if reason in self._said:
            return False
        self._said.add(reason)
        self._said_at = now
        return True

    def over(self) -> bool:
        """It works. Had anything been said?"""
        said = bool(self._said)
        self._since = None
        self._said.clear()
        return said
