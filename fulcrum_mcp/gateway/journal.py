"""The journal: the ledger's reservation and the `decided` record of many calls in one step, durable before any goes on.

A tick takes all calls that wait, applies their ledger operations in one transaction, and hands their records to the
writer thread, which appends them in one durable step (group commit); only then are the calls woken. Where that step is
another process's, it is begun, and no thread waits for it. Calls that come meanwhile make the next tick. What does not
wait (settlements) rides along, or has a tick of its own after `LINGER`.

A *quick* ledger works on the event loop: it answers within a fraction of a millisecond or says that it is busy, and its
many small statements would otherwise fight the loop for the interpreter's lock. One across the network works on a
thread while the loop goes on, and nothing that needs no ledger waits for it. A fault of the ledger or of the log denies
every call that waited for it; what was reserved, or may have been, is given back.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import structlog

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Operation, Outcome, Refused, Release, Reserve, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.appending import Appending
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.overdue import Overdue, Side
from fulcrum_mcp.gateway.reach import BUSY_PAUSE, Reach
from fulcrum_mcp.gateway.records import ledger_event_draft
from fulcrum_mcp.gateway.renewal import RETRY, Renewal
from fulcrum_mcp.gateway.tick import Admission, Settlement, Tick, ends_of, wake
from fulcrum_mcp.ports import AuditLog, BudgetLedger

__all__ = ["Journal", "Settlement"]

LINGER: Final = 0.005
PATIENCE: Final = 5.0
"""Seconds that a call waits for its decision to become durable; then it is denied."""
SHARED_PATIENCE: Final = 0.7
"""The same where the ledger is across the network."""
MOST_TURNS: Final = 8
"""Turns of the loop for which a tick may wait for more calls."""
MOST_SETTLEMENTS: Final = 1024
"""In one tick."""
LAST_TURNS: Final = 10
"""Turns of the loop in which calls that were ended with the gateway may still settle."""
LAST_TRIES: Final = 2
"""How often, at the end, a ledger that has failed is told again what is settled."""

_log = structlog.get_logger("fulcrum.journal")


class Journal:
    """Start it on the event loop that will use it; `close` commits what is queued."""

    def __init__(self, ledger: BudgetLedger, log: AuditLog) -> None:
        self._ledger = ledger
        self._log = log
        patience = PATIENCE if ledger.quick else SHARED_PATIENCE
        remedy = "check the disk of the data folder" if ledger.quick else "check the ledger's server and this disk"
        self._reach = Reach(quick=ledger.quick, patience=patience)
        self._loop = asyncio.get_running_loop()
        self._admissions: list[Admission] = []
        """Those that wait for the ledger."""
        self._ready: list[Admission] = []
        """Those whose ledger part is done, or that have none."""
        self._settlements: deque[Settlement] = deque()
        """Those that wait for the ledger."""
        self._ended: list[Settlement] = []
        self._owed: list[RecordDraft] = []
        """Records whose ledger part is done and that a failing log has not taken yet."""
        self._asking = self._writing = False
        self._asked_again = 0.0
        """Until then a ledger that has failed is asked for calls only."""
        self._holding = 0
        """Who waits for `heads`: meanwhile nothing new is reserved, and written only what is."""
        self._scheduled = False
        self._lingering = False
        self._oldest = 0.0
        """When the first of the settlements that wait was told."""
        self._gathered = self._turns = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._retries: dict[Side, asyncio.TimerHandle] = {}
        self._appending = Appending(log, self._written)
        self.faults = 0
        """Steps of the ledger or of the log that failed, for health."""
        self._failing: dict[Side, str] = {}
        self._overdue = Overdue(patience, remedy, self._failing.__setitem__)
        self._renewal = Renewal(ledger, log.writer, self._reach, lambda: self._works("ledger"))

    @property
    def failing(self) -> str | None:
        """Why the last step of ledger or log failed; None when it did not."""
        return next(iter(self._failing.values()), None)

    @property
    def writer(self) -> str:
        """The writer whose chains this journal extends."""
        return self._log.writer

    def start(self) -> None:
        """Begin; reservations of this writer are renewed from now on."""
        self._appending.start()
        self._renewal.renew()
        self._overdue.look()

    async def admit(
        self,
        reserve: Reserve | None,
        build: Callable[[Outcome | None], RecordDraft],
        abandon: Callable[[Outcome | None], None],
    ) -> Outcome | None:
        """Reserve and record in one step; returns once the record is durable.

        `build` makes the `decided` record from the ledger's outcome. `abandon` is called instead of returning when the
        waiting task was cancelled meanwhile: the decision stands in the log, and the call must be settled as one that
        was never sent.

        Raises:
            Unavailable: the ledger or the log failed; nothing is held and the call must be denied.
        """
        if self._closing:
            raise Unavailable("journal: shutting down; send the call again")
        future: asyncio.Future[Outcome | None] = self._loop.create_future()
        side: Side = "log" if reserve is None else "ledger"
        (self._ready if reserve is None else self._admissions).append(Admission(reserve, build, abandon, future))
        self._overdue.wait(future, side)
        self._schedule()
        try:
            return await future
        except asyncio.CancelledError:
            # Cancelled after `_wake` had set the outcome, before this task ran again.
            if future.done() and not future.cancelled() and future.exception() is None:
                abandon(future.result())
            raise

    async def run(self, work: Callable[[], Any]) -> Any:
        """Call methods of ledger or history; waits a little while they say that they are busy.

        Raises:
            Unavailable: what the method raised.
        """
        if self._closing:
            raise Unavailable("journal: shutting down; send the call again")
        return await self._reach.run(work)

    async def heads(self) -> Mapping[str, int]:
        """Where every chain of this writer stands, taken while the log knows all that the ledger has done for it."""
        self._holding += 1
        try:
            while self._asking or self._writing or self._ahead:  # noqa: ASYNC110 - a tick is over in milliseconds
                await asyncio.sleep(BUSY_PAUSE)
            return self._log.heads()
        finally:
            self._holding -= 1
            self._schedule()

    @property
    def _ahead(self) -> bool:
        """The ledger has reserved or settled what the log does not say yet."""
        reserved = any(admission.reserve is not None for admission in self._ready)
        return reserved or any(settlement.operation is not None for settlement in self._ended)

    def settle(self, settlement: Settlement) -> None:
        """Queue a settlement; it is durable within a tick, and nobody waits for it."""
        if not self._settlements and not self._ended:
            self._oldest = self._loop.time()
        (self._ended if settlement.operation is None else self._settlements).append(settlement)
        self._linger()

    def _linger(self, seconds: float | None = None) -> None:
        if not self._lingering:
            self._lingering = True
            self._loop.call_later(LINGER if seconds is None else seconds, self._linger_over)

    def _linger_over(self) -> None:
        """What is left has waited long enough; or it came since another tick took what this timer was for."""
        self._lingering = False
        left = self._oldest + LINGER - self._loop.time()
        if left <= 0:
            self._schedule()
        elif self._settlements or self._ended or self._owed:
            self._linger(left)

    def _schedule(self) -> None:
        if not self._writing and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        """What waits: its ledger operations now, the records of what is ready to the writer thread."""
        self._scheduled = False
        if self._writing:
            return
        waiting = len(self._admissions) + len(self._ready)
        if waiting > self._gathered and self._turns < MOST_TURNS:
            # As long as each turn of the loop brings another call, the tick waits for it.
            self._gathered = waiting
            self._turns += 1
            self._scheduled = True
            self._loop.call_soon(self._tick)
            return
        self._gathered = self._turns = 0
        if not self._asking and not self._holding:
            self._ask()
        self._record()
        if not any((self._asking, self._writing, self._admissions, self._ready, self._settlements, self._ended)):
            self._idle.set()

    def _ask(self) -> None:
        """The ledger's part of everything that waits for it."""
        if not self._admissions and not self._closing and self._loop.time() < self._asked_again:
            return
        admissions, self._admissions = self._admissions, []
        settlements = list(islice(self._settlements, MOST_SETTLEMENTS))
        operations: list[Operation] = [item.operation for item in settlements if item.operation is not None]
        settled = len(operations)
        operations.extend(admission.reserve for admission in admissions if admission.reserve is not None)
        if not operations:
            return
        self._asking = True

        def answered(outcomes: Sequence[Outcome] | None, fault: Exception | None) -> None:
            self._asking = False
            if fault is None and outcomes is not None:
                self._reserved(admissions, settlements, outcomes, settled)
            else:
                self._unanswered(admissions, fault or Unavailable("the ledger gave no answer"))
            if not self._ledger.quick:
                self._record()
                if fault is None or not self._closing:
                    self._further()

        self._reach.ask(lambda: self._ledger.apply(operations), answered)

    def _unanswered(self, admissions: list[Admission], fault: Exception) -> None:
        """The ledger has failed: fail closed, every call that waited for it is denied."""
        if self._reach.may_wait(fault):
            self._admissions = admissions + self._admissions
            self._scheduled = True
            self._loop.call_later(BUSY_PAUSE, self._tick)
            return
        if isinstance(fault, Unavailable) and fault.doubtful:
            at = now_ns()
            reserves = [admission.reserve for admission in admissions if admission.reserve is not None]
            self._settlements.extend(Settlement(Release(item.call, item.leg, at), None) for item in reserves)
        self._asked_again = self._loop.time() + RETRY
        self._fail(admissions, fault, "ledger")
        self._renewal.soon()

    def _reserved(
        self,
        admissions: list[Admission],
        settlements: Sequence[Settlement],
        outcomes: Sequence[Outcome],
        settled: int,
    ) -> None:
        """The ledger's part is done: what is left is the log's."""
        self._works("ledger")
        for _ in settlements:
            self._settlements.popleft()
        for outcome in outcomes:
            if not isinstance(outcome, Refused) and outcome.events:
                self._owed.extend(ledger_event_draft(event) for event in outcome.events)
        self._ended.extend(settlements)
        for admission, outcome in zip(admissions, outcomes[settled:], strict=True):
            admission.outcome = outcome
        self._ready.extend(admissions)

    def _record(self) -> None:
        """Make the records of what is ready and have them written in one step."""
        if self._writing or (self._holding and not self._asking and not self._ahead):
            return
        admissions, self._ready = self._ready, []
        owed, self._owed = [*self._owed, *ends_of(self._ended)], []
        self._ended = []
        drafts: list[RecordDraft] = []
        broken: list[Admission] = []
        for admission in admissions:
            try:
                drafts.append(admission.build(admission.outcome))
            except Exception as fault:  # noqa: BLE001 - one call that cannot be recorded is denied, and only that one
                admission.fault = fault
                broken.append(admission)
        if broken:
            self._give_back(broken)
        if not owed and not drafts:
            wake(admissions)
            return
        try:
            block = self._log.prepare([*owed, *drafts])
        except Exception as fault:  # noqa: BLE001 - fail closed: every call of this tick is denied
            self._owed = owed + self._owed
            self._refuse(admissions, fault)
            return
        self._writing = True
        self._appending.append(Tick(admissions, owed, block))

    def _written(self, tick: Tick, fault: Exception | None) -> None:
        self._writing = False
        self._log.conclude(tick.block, written=fault is None)
        if fault is None:
            self._works("log")
            wake(tick.admissions)
        else:
            self._owed = tick.owed + self._owed
            self._refuse(tick.admissions, fault)
        self._further()

    def _further(self) -> None:
        """After a step: what came meanwhile."""
        if self._admissions or self._ready or self._closing:
            self._tick()
        elif self._settlements or self._ended or (self._owed and "log" not in self._failing):
            self._linger()

    def _refuse(self, admissions: Sequence[Admission], fault: Exception) -> None:
        """The ledger's part is done and the log's is not: undo the one, deny the calls."""
        self._give_back([admission for admission in admissions if admission.fault is None])
        self._fail(admissions, fault, "log")

    def _fail(self, admissions: Sequence[Admission], fault: Exception, side: Side) -> None:
        self.faults += 1
        self._failing[side] = str(fault) or type(fault).__name__
        for admission in admissions:
            admission.fault = admission.fault or fault
        wake(admissions)
        _log.error("tick failed", reason=self._failing[side], admissions=len(admissions))
        if not self._closing:
            if side in self._retries:
                self._retries[side].cancel()
            self._retries[side] = self._loop.call_later(RETRY, self._schedule)
        else:
            self._idle.set()

    def _works(self, side: Side) -> None:
        self._failing.pop(side, None)

    def _give_back(self, admissions: Sequence[Admission]) -> None:
        at = now_ns()
        releases = [
            Release(admission.reserve.call, admission.reserve.leg, at)
            for admission in admissions
            if admission.reserve is not None
            and isinstance(admission.outcome, Reserved)
            and not admission.outcome.repeated
        ]
        if releases:
            self._reach.ask(lambda: self._ledger.apply(releases), lambda _, fault: self._given_back(releases, fault))

    def _given_back(self, releases: Sequence[Release], fault: Exception | None) -> None:
        if fault is not None:
            _log.warning("reservations not given back yet", reason=str(fault), count=len(releases))
            self._settlements.extend(Settlement(release, None) for release in releases)

    async def close(self) -> None:
        """Commit what is queued and stop the thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._renewal.stop()
        self._overdue.stop()
        for timer in self._retries.values():
            timer.cancel()
        if self._appending.runs:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._drain()
            except TimeoutError:
                _log.error("not everything was committed", reason="the log does not answer")
            await self._appending.stop(PATIENCE)
        self._reach.close()
        await asyncio.to_thread(self._log.close)

    async def _drain(self) -> None:
        """Commit what is queued, and what calls that are just ending still bring; ask a failing ledger again."""
        for _ in range(LAST_TURNS):
            await self._last_turn()
        for _ in range(LAST_TRIES):
            if self._settlements:
                await asyncio.sleep(RETRY)
                await self._last_turn()

    async def _last_turn(self) -> None:
        self._idle.clear()
        self._schedule()
        await self._idle.wait()
        await asyncio.sleep(0)
