"""Forgetting old windows and settled reservations, a few at a time, so that no batch waits for it.

Forgetting a window that was used up must never reopen it when the clock goes backwards. So the store remembers its
*horizon*, and a window that ended before it and is not found is refused. The horizon begins at the oldest thing there
is (no earlier than 2026: clocks that were never set) and moves one hour at most in 30 seconds of running time: a clock
that jumps far ahead for a while does not take today's windows with it.
"""

from collections.abc import Callable
from sqlite3 import Connection

__all__ = ["Forgetter"]

SECOND = 1_000_000_000
_STRIDE = 3_600 * SECOND
_PAUSE = 30.0
_AT_LEAST = 16
_YEAR_2026 = 1_767_225_600 * SECOND

_OLDEST = (
    "SELECT min(at) FROM (SELECT min(ends) AS at FROM account WHERE ends > 0 AND reserved = 0"
    " UNION ALL SELECT min(settled_at) FROM hold WHERE state <> 0)"
)
_SETTLED = (
    "DELETE FROM hold WHERE (call, leg) IN"
    " (SELECT call, leg FROM hold WHERE state <> 0 AND settled_at < ? ORDER BY settled_at LIMIT ?)"
)
_ENDED = (
    "DELETE FROM account WHERE id IN"
    " (SELECT id FROM account WHERE ends > 0 AND ends <= ? AND reserved = 0 ORDER BY ends LIMIT ?)"
)
_IDLE = (
    "DELETE FROM arrival WHERE (owner, budget, bucket) IN"
    " (SELECT owner, budget, bucket FROM arrival WHERE at < ? / 1000 LIMIT ?)"
)


class Forgetter:
    """One process's share of the forgetting; `keep` in seconds."""

    def __init__(self, keep: int, monotonic: Callable[[], float]) -> None:
        self._keep = keep * SECOND
        self._monotonic = monotonic
        self._next = monotonic()
        self._horizon = 0
        self._busy = False

    def step(self, connection: Connection, at: int, operations: int) -> None:
        """Forget at most a few more rows than `operations` brought in."""
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + _PAUSE
            self._advance(connection, at)
        if not self._busy:
            return
        most = 2 * operations + _AT_LEAST
        gone = [
            connection.execute(statement, (self._horizon, most)).rowcount for statement in (_SETTLED, _ENDED, _IDLE)
        ]
        self._busy = most in gone

    def _advance(self, connection: Connection, at: int) -> None:
        (self._horizon,) = connection.execute("SELECT at FROM horizon").fetchone()
        self._busy = True
        if self._horizon == 0:
            (oldest,) = connection.execute(_OLDEST).fetchone()
            if oldest is None:
                return
            self._horizon = max(oldest, _YEAR_2026) - self._keep
        self._horizon = max(self._horizon, min(at - self._keep, self._horizon + _STRIDE))
        connection.execute("UPDATE horizon SET at = ?", (self._horizon,))
