"""The ledger in SQLite: one transaction a batch, safe for several processes on one file."""

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from sqlite3 import Connection

from fulcrum_adapters.sqlite.books import SqliteBook, load, load_holds, save
from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.forget import Forgetter
from fulcrum_mcp.core.admission import admit, expiry, look, settle
from fulcrum_mcp.core.budget import (
    Budget,
    BudgetUsage,
    Commit,
    Expire,
    LedgerEvent,
    Match,
    Operation,
    Outcome,
    Release,
    Remaining,
    Renew,
    Reserve,
    Settled,
)
from fulcrum_mcp.core.window import window_at

__all__ = ["SqliteLedger"]

_AT_ONCE = 500
_USAGE = (
    "SELECT bucket, amount, sum(committed * current), sum(reserved * current)"
    " FROM (SELECT *, starts = ? AS current FROM account WHERE owner = ? AND budget = ?)"
    " GROUP BY bucket, amount ORDER BY bucket, amount"
)
_Point = Reserve | Commit | Release


class SqliteLedger:
    """`BudgetLedger` on a `WalDatabase`; used on one thread.

    Settled reservations, and windows that ended, are forgotten after `keep` seconds, a few in each batch.
    """

    quick = True

    def __init__(
        self, database: WalDatabase, *, keep: int = 86_400, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._forgetter = Forgetter(keep, monotonic)

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Apply in order, all in one transaction."""
        if not operations:
            return []
        outcomes: list[Outcome] = []
        with self._database.write() as connection:
            for pointed, group in groupby(operations, _is_point):
                if pointed:
                    outcomes += _apply_points(connection, [op for op in group if isinstance(op, _Point)])
                else:
                    outcomes += [_sweep(connection, op) for op in group if isinstance(op, Renew | Expire)]
            self._forgetter.step(connection, operations[-1].at, len(operations))
        return outcomes

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """Every bucket that was ever used, in the window that holds `at` (ns)."""
        found: list[BudgetUsage] = []
        with self._database.read() as connection:
            for budget in budgets:
                start, end = window_at(budget.period, budget.timezone, at)
                rows = connection.execute(_USAGE, (start, budget.tenant, budget.id)).fetchall()
                for bucket, amounts in groupby(rows, itemgetter(0)):
                    committed, reserved = dict.fromkeys(budget.limits, 0), dict.fromkeys(budget.limits, 0)
                    for _, amount, booked, held in amounts:
                        committed[amount], reserved[amount] = booked, held
                    found.append(BudgetUsage(budget, bucket, start, end, committed, reserved))
        return found

    def peek(self, matches: Sequence[Match], at: int) -> tuple[Remaining, ...]:
        """What is left in the buckets of one call, cheaply; advisory, only `apply` enforces."""
        with self._database.read() as connection:
            return look(SqliteBook(connection), matches, at)

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """(call, leg) of the unsettled reservations of a writer."""
        with self._database.read() as connection:
            found: list[tuple[str, int]] = connection.execute(
                "SELECT call, leg FROM hold WHERE state = 0 AND writer = ? ORDER BY call, leg", (writer,)
            ).fetchall()
        return found

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._database.close()


def _is_point(operation: Operation) -> bool:
    return isinstance(operation, _Point)


def _apply_points(connection: Connection, operations: Sequence[_Point]) -> list[Outcome]:
    book = load(connection, operations)
    outcomes: list[Outcome] = [
        admit(book, operation) if isinstance(operation, Reserve) else settle(book, operation)
        for operation in operations
    ]
    save(connection, book)
    return outcomes


def _sweep(connection: Connection, operation: Renew | Expire) -> Settled:
    if isinstance(operation, Renew):
        until = expiry(operation.at, operation.ttl)
        statement = "UPDATE hold SET expires = max(expires, ?) WHERE state = 0 AND writer = ?"
        return Settled(connection.execute(statement, (until, operation.writer)).rowcount)
    count = 0
    events: list[LedgerEvent] = []
    while True:
        late = connection.execute(
            "SELECT call, leg FROM hold WHERE state = 0 AND expires <= ? LIMIT ?", (operation.at, _AT_ONCE)
        ).fetchall()
        if not late:
            return Settled(count, tuple(events))
        book = SqliteBook(connection)
        load_holds(connection, book, {call for call, _ in late})
        for call, leg in late:
            settled = settle(book, Commit(call, leg, None, operation.at), expired=True)
            count += settled.count
            events += settled.events
        save(connection, book)
