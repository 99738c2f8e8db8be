"""The ledger in memory: for tests and dry runs, one process, one thread. It forgets nothing."""

from collections.abc import Sequence
from typing import assert_never

from fulcrum_mcp.core.account import Book, State
from fulcrum_mcp.core.admission import admit, look, renew, settle
from fulcrum_mcp.core.budget import (
    Budget,
    BudgetUsage,
    Commit,
    Expire,
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

__all__ = ["MemoryLedger"]


class MemoryLedger:
    """`BudgetLedger` over one book that lives as long as the object."""

    quick = True

    def __init__(self) -> None:
        self._book = Book()

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Apply in order."""
        return [self._one(operation) for operation in operations]

    def _one(self, operation: Operation) -> Outcome:
        book = self._book
        match operation:
            case Reserve():
                return admit(book, operation)
            case Commit() | Release():
                return settle(book, operation)
            case Renew():
                return Settled(sum(renew(hold, operation) for hold in book.holds.values()))
            case Expire(at):
                late = [hold for hold in book.holds.values() if hold.state is State.OPEN and hold.expires <= at]
                for hold in late:
                    settle(book, Commit(hold.call, hold.leg, None, at), expired=True)
                return Settled(len(late))
            case _:
                assert_never(operation)

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """Every bucket that was ever used, in the window that holds `at` (ns)."""
        found: list[BudgetUsage] = []
        for budget in budgets:
            start, end = window_at(budget.period, budget.timezone, at)
            owned = [key for key in self._book.accounts if key[:2] == (budget.tenant, budget.id)]
            for bucket in sorted({key[2] for key in owned}):
                current = {key[3]: self._book.accounts[key] for key in owned if key[2] == bucket and key[4] == start}
                committed = dict.fromkeys(budget.limits, 0) | {name: a.committed for name, a in current.items()}
                reserved = dict.fromkeys(budget.limits, 0) | {name: a.reserved for name, a in current.items()}
                found.append(BudgetUsage(budget, bucket, start, end, committed, reserved))
        return found

    def peek(self, matches: Sequence[Match], at: int) -> tuple[Remaining, ...]:
        """What is left in the buckets of one call, cheaply; advisory, only `apply` enforces."""
        return look(self._book, matches, at)

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """(call, leg) of the unsettled reservations of a writer."""
        holds = self._book.holds.values()
        return [(hold.call, hold.leg) for hold in holds if hold.writer == writer and hold.state is State.OPEN]
