"""What policies ask about the past, in the ledger's file."""

import time
from collections.abc import Callable, Sequence
from sqlite3 import Connection

from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_mcp.ports import HistoryView

__all__ = ["SqliteHistory"]

SECOND = 1_000_000_000
_SLICES = 60
_ENVELOPE_KEPT = 90 * 86_400 * SECOND
_SWEEP_EVERY = 256
_AT_ONCE = 512
_OLD_TALLIES = "DELETE FROM tally WHERE rowid IN (SELECT rowid FROM tally WHERE lasting = ? AND at <= ? LIMIT ?)"
_OLD_TAINTS = "DELETE FROM taint WHERE rowid IN (SELECT rowid FROM taint WHERE lasting = ? AND at <= ? LIMIT ?)"


class SqliteHistory:
    """`History` on a `WalDatabase`; used on one thread.

    A key's past counts for `key_window` seconds (its calls are counted in slices of a sixtieth of it, so one may count
    a slice longer, never shorter). An envelope's counts until nothing has touched that label or tool for 90 days.
    Inside `WalDatabase.write` all of it joins that transaction.
    """

    def __init__(
        self, database: WalDatabase, *, key_window: int = 3_600, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._window = key_window * SECOND
        self._slice = max(self._window // _SLICES, 1)
        self._clock = clock
        self._writes = 0

    def read(self, tenant: str, subject: str) -> HistoryView:
        """Everything about one subject, as of now."""
        since = self._clock() - self._window if _is_key(subject) else 0
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT label, NULL FROM taint WHERE tenant = ?1 AND subject = ?2 AND at > ?3 UNION ALL"
                " SELECT tool, sum(calls) FROM tally WHERE tenant = ?1 AND subject = ?2 AND at > ?3 GROUP BY tool",
                (tenant, subject, since),
            ).fetchall()
        taints = tuple(sorted(name for name, calls in rows if calls is None))
        return HistoryView(taints, {name: calls for name, calls in rows if calls is not None})

    def count(self, tenant: str, subject: str, tool: str, at: int) -> None:
        """Count one admitted call."""
        part = at // self._slice if _is_key(subject) else 0
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO tally VALUES (?, ?, ?, ?, 1, ?, ?)"
                " ON CONFLICT DO UPDATE SET calls = calls + 1, at = max(at, excluded.at)",
                (tenant, subject, tool, part, not _is_key(subject), at),
            )
            self._writes += 1
            if self._writes % _SWEEP_EVERY == 0:
                self._sweep(connection)

    def taint(self, tenant: str, subject: str, labels: Sequence[str], at: int) -> None:
        """Add labels."""
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO taint VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                [(tenant, subject, label, not _is_key(subject), at) for label in labels],
            )

    def _sweep(self, connection: Connection) -> None:
        now = self._clock()
        for lasting, kept in ((0, self._window), (1, _ENVELOPE_KEPT)):
            for statement in (_OLD_TALLIES, _OLD_TAINTS):
                connection.execute(statement, (lasting, now - kept, _AT_ONCE))


def _is_key(subject: str) -> bool:
    return subject.startswith("key:")
