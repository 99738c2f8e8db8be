"""The ledger on Redis or Valkey: one script call a batch, safe for any number of gateways."""

from collections.abc import Iterator, Sequence
from typing import Any

from fulcrum_adapters.redis.answer import outcome_of, remaining_of
from fulcrum_adapters.redis.naming import joined, plain
from fulcrum_adapters.redis.rebuild import rebuild
from fulcrum_adapters.redis.request import Request
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Past
from fulcrum_mcp.core.budget import (
    Budget,
    BudgetUsage,
    Expire,
    Match,
    Operation,
    Outcome,
    Remaining,
    Settled,
)
from fulcrum_mcp.core.window import window_at
from fulcrum_mcp.errors import Unavailable

__all__ = ["RedisLedger"]

_PAGE = 200
_MOST_SWEEPS = 40
"""Further calls for what one `Expire` has left over, so that no call keeps the server for long."""


class RedisLedger:
    """`SharedLedger` on a `RedisStore`; called on threads.

    Whatever it cannot do for certain it refuses, also reading: an empty book would say that nothing was spent. It is
    bound to the books that `epoch` told last; with others it refuses until `epoch` is asked again.
    """

    quick = False

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Apply in order, all in one script call, which is sent once."""
        if not operations:
            return []
        request = Request()
        for operation in operations:
            request.add(operation)
        answers = self._store.write(request.operations, operations[-1].at, request.places, request.rates)
        outcomes = [
            outcome_of(operation, answer, request.paced) for operation, answer in zip(operations, answers, strict=True)
        ]
        for number, (operation, answer) in enumerate(zip(operations, answers, strict=True)):
            if isinstance(operation, Expire) and answer[3]:
                outcomes[number] = self._expire_more(operation, answer[1])
        return outcomes

    def _expire_more(self, operation: Expire, count: int) -> Settled:
        """What is left over. What fails now is done by the next `Expire`; an estimate that is booked makes no event."""
        request = Request()
        request.add(operation)
        for _ in range(_MOST_SWEEPS):
            try:
                (answer,) = self._store.write(request.operations, operation.at)
            except Unavailable:
                break
            count += answer[1]
            if not answer[3]:
                break
        return Settled(count)

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """Every bucket that was used and is not forgotten, in the window that holds `at` (ns)."""
        found: list[BudgetUsage] = []
        for budget in budgets:
            start, end = window_at(budget.period, budget.timezone, at)
            for bucket, amounts in sorted({row[0]: row[1:] for row in self._rows(budget, start)}.items()):
                committed = dict(zip(budget.limits, amounts[::2], strict=True))
                reserved = dict(zip(budget.limits, amounts[1::2], strict=True))
                found.append(BudgetUsage(budget, bucket, start, end, committed, reserved))
        return found

    def _rows(self, budget: Budget, start: int) -> Iterator[list[Any]]:
        owner = joined(budget.tenant, budget.id)
        tails = [joined(name, str(start)) for name in budget.limits]
        first, more = 0, bool(tails)
        while more:
            ((_, rows, more),) = self._store.read([[9, f"i{owner}", first, _PAGE, f"a{owner}", tails]])
            yield from rows
            first += _PAGE

    def peek(self, matches: Sequence[Match], at: int) -> Sequence[Remaining]:
        """What is left in the buckets of one call, cheaply; advisory, only `apply` enforces."""
        request = Request()
        request.peek(matches, at)
        ((_, lefts, paces),) = self._store.read(request.operations, request.places, request.rates)
        return tuple(remaining_of(matches, at, lefts, paces))

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """(call, leg) of the unsettled reservations of a writer."""
        ((_, names),) = self._store.read([[11, plain(writer)]])
        pairs = (name.partition(":") for name in names)
        return sorted((call, int(leg)) for leg, _, call in pairs)

    def epoch(self) -> tuple[str, bool]:
        """The name of the books, and whether they are made."""
        policy = self._store.evicts()
        if policy is not None:
            raise Unavailable(
                f"redis: {self._store.config.place} may evict keys ({policy}), and with them what was spent; "
                "set maxmemory-policy to noeviction"
            )
        return self._store.state()

    def rebuild(self, epoch: str, book: Book, past: Past, at: int, *, beginning: bool = False) -> bool:
        """Take over what the store knows; False if the server is in another run, or has been rebuilt already."""
        return rebuild(self._store, epoch, book, past, at, beginning=beginning)

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        self._store.close()
