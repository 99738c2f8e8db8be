"""Keeps a ledger across the network trustworthy: every writer is known to the store, and lost books are rebuilt.

A server that was restarted, emptied or replaced has lost what was reserved and spent; it refuses until its books belong
to its present run. The books are made from the store, once that holds everything that living writers have written: each
declares where its chains stand, taken while none of its reservations is on the way, and the budgets of its own file,
before it spends on them: whoever makes the books need not have them. Calls that are still open count as spent. Until
then whatever needs the ledger is denied.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from fulcrum_mcp.core.books import book_of
from fulcrum_mcp.core.budget import Budget, BudgetUsage, Commit, Match, Operation, Outcome, Remaining, Reserve
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.complaint import Complaint
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.gateway.lease import Hearing, Lease, lease_clock
from fulcrum_mcp.ports import BudgetLedger, SharedLedger, WriterRegistry

__all__ = ["FencedLedger", "LedgerKeeper"]

CALM: Final = 1.0
"""Seconds between two looks at a ledger that serves."""
URGENT: Final = 0.1
"""The same while its books are being rebuilt."""
BEAT: Final = 5.0

_UNKNOWN: Final = "this gateway is not known to the store yet; check Postgres, and send the call again"

_log = structlog.get_logger("fulcrum.keeper")


class FencedLedger:
    """`BudgetLedger` that reserves nothing until its writer is known to the store."""

    quick = False

    def __init__(self, ledger: BudgetLedger, barred: Callable[[], str | None] = lambda: None) -> None:
        """`barred`: why nothing may be reserved at the moment, although its writer is known."""
        self._ledger = ledger
        self._barred = barred
        self.open_to_reserve = False
        self.waiting: str | None = None
        """Why it is not, where that is known."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """See `BudgetLedger`."""
        if any(isinstance(operation, Reserve) for operation in operations):
            if not self.open_to_reserve:
                raise Unavailable(self.waiting or _UNKNOWN)
            why = self._barred()
            if why is not None:
                raise Unavailable(why)
        return self._ledger.apply(operations)

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """See `BudgetLedger`."""
        return self._ledger.usage(budgets, at)

    def peek(self, matches: Sequence[Match], at: int) -> Sequence[Remaining]:
        """See `BudgetLedger`."""
        return self._ledger.peek(matches, at)

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """See `BudgetLedger`."""
        return self._ledger.open(writer)


class LedgerKeeper:
    """One for each journal. `start` it on the journal's loop."""

    def __init__(
        self,
        ledger: SharedLedger,
        fence: FencedLedger,
        registry: WriterRegistry,
        journal: Journal,
        budgets: Callable[[], Sequence[Budget]],
        lease: Lease | None = None,
        lost: Callable[[], None] = lambda: None,
        own: Sequence[Budget] = (),
        hearing: Hearing | None = None,
    ) -> None:
        """`budgets`: all that this gateway knows; `own`: those that no other one need know.

        `lease`: of a writer without a spool, `hearing`: of one with it. `lost` is called when another gateway has taken
        over from it.
        """
        self._ledger = ledger
        self._fence = fence
        self._registry = registry
        self._journal = journal
        self._budgets = budgets
        self._lease = lease
        self._lost = lost
        self._own = own
        self._hearing = hearing
        self._declared: tuple[str, str] | None = None
        self._beat_at = 0.0
        self._complaint = Complaint()
        self._task: asyncio.Task[None] | None = None
        self.waiting: str | None = "it was not asked yet"
        """Why the ledger does not serve; None when it does."""

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                waiting = await self.turn()
            except Unavailable as fault:
                waiting = str(fault)
            except Exception as fault:  # noqa: BLE001 - keeping must not end while the gateway runs; calls are denied meanwhile
                _log.exception("ledger not kept")
                waiting = f"the ledger cannot be kept: {fault}"
            if waiting is None:
                if self.waiting is not None:
                    self._complaint.over()
                    _log.info("ledger serves")
            elif self._complaint.due(waiting):
                _log.warning("ledger does not serve", reason=waiting)
            self.waiting = self._fence.waiting = waiting
            if self._lease is not None and self._lease.ended:
                _log.error("another gateway has taken over from this one", writer=self._journal.writer)
                self._lost()
                return
            await asyncio.sleep(CALM if waiting is None else URGENT)

    async def turn(self) -> str | None:
        """Declare, beat, rebuild: whatever is due. Why the ledger does not serve yet, or None. Raises `Unavailable`."""
        writer = self._journal.writer
        if time.monotonic() - self._beat_at > BEAT:
            self._beat_at = time.monotonic()
            with contextlib.suppress(Unavailable):  # the ledger serves without the store; it is told there
                await self._beat(writer)
        epoch, valid = await asyncio.to_thread(self._ledger.epoch)
        if self._declared is None and valid:
            await self._settle_left(writer)
        if self._declared != (writer, epoch):
            heads, asked_at = await self._journal.heads(), lease_clock()
            await asyncio.to_thread(self._registry.declare, writer, epoch, heads, now_ns(), self._own)
            self._declared = (writer, epoch)
            if self._hearing is not None:
                self._hearing.heard(asked_at)
            self._fence.open_to_reserve = True
        if valid:
            return None
        return await asyncio.to_thread(self._rebuild, epoch)

    async def _beat(self, writer: str) -> None:
        lease, asked_at = self._lease, lease_clock()
        alive = await asyncio.to_thread(self._registry.beat, writer, now_ns(), streamed=lease is not None)
        if self._hearing is not None:
            self._hearing.heard(asked_at)
        if lease is not None:
            if alive:
                lease.renew(asked_at)
            else:
                lease.end()

    async def _settle_left(self, writer: str) -> None:
        """What a dead process of this writer held is committed at its estimate; else it would be renewed for ever."""
        for call, leg in await asyncio.to_thread(self._ledger.open, writer):
            self._journal.settle(Settlement(Commit(call, leg, None, now_ns()), None))

    def _rebuild(self, epoch: str) -> str | None:
        missing = self._registry.missing(epoch, now_ns())
        if missing:
            return f"its books are being rebuilt: {missing[0]}"
        at = now_ns()
        budgets = (*self._budgets(), *self._registry.declared())
        books = self._registry.books(budgets, at)
        if self._ledger.rebuild(epoch, book_of(books, budgets), books.past, at, beginning=books.beginning):
            if not books.beginning:
                _log.warning("ledger rebuilt", places=len(books.spent), open=len(books.unsettled))
            return None
        return "its books are being rebuilt by another gateway"

    async def close(self, *, retire: bool) -> None:
        """Stop. `retire`: everything this writer wrote is in the store, so that nobody need wait for it. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            if retire:
                with contextlib.suppress(Unavailable):
                    await asyncio.to_thread(self._registry.retire, self._journal.writer)
