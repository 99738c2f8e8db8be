"""The journal: one thread that owns ledger, history and audit log, and commits for many calls at once.

Each tick it takes all that is queued, applies every ledger operation in one transaction, writes every record in one
durable step, and only then wakes the calls that wait: nothing is forwarded before its decision is durable. What does
not wait (settlements) rides with the next tick, or with one of its own after `LINGER` seconds.

A fault of the ledger or of the log fails every call of the tick (they are denied); what was reserved is given back.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Commit, Expire, Operation, Outcome, Refused, Release, Renew, Reserve, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.records import ledger_event_draft
from fulcrum_mcp.ports import AuditLog, BudgetLedger

__all__ = ["Journal", "Settlement"]

LINGER: Final = 0.005
PATIENCE: Final = 5.0
"""Seconds that a call waits for its decision to become durable; then it is denied."""
RENEW_EVERY: Final = 20.0
RESERVATION_TTL: Final = 90
"""Seconds; a live writer renews long before."""

_log = structlog.get_logger("fulcrum.journal")


class _Admission:
    __slots__ = ("abandon", "build", "fault", "future", "outcome", "reserve")

    def __init__(
        self,
        reserve: Reserve | None,
        build: Callable[[Outcome | None], RecordDraft],
        abandon: Callable[[Outcome | None], None],
        future: "asyncio.Future[Outcome | None]",
    ) -> None:
        self.abandon = abandon
        self.reserve = reserve
        self.build = build
        self.future = future
        self.outcome: Outcome | None = None
        self.fault: BaseException | None = None


class _Errand:
    __slots__ = ("fault", "future", "result", "work")

    def __init__(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.fault: BaseException | None = None


class Settlement:
    """How a call ended: a ledger operation and the record that says so, made lazily on the journal's thread."""

    __slots__ = ("build", "operation")

    def __init__(self, operation: Commit | Release | None, build: Callable[[], RecordDraft] | None) -> None:
        self.operation = operation
        self.build = build


class Journal:
    """Start it on the event loop that will use it; `close` drains what is queued."""

    def __init__(self, ledger: BudgetLedger, log: AuditLog) -> None:
        self._ledger = ledger
        self._log = log
        self._queue: SimpleQueue[_Admission | _Errand | None] = SimpleQueue()
        self._settlements: deque[Settlement] = deque()
        self._owed: list[RecordDraft] = []
        """Records whose ledger part is done and that a failing log has not taken yet."""
        self._flush_armed = False
        self._closing = False
        self._beat = 0.0
        self._loop = asyncio.get_running_loop()
        self._renewal: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[float, asyncio.Future[Outcome | None]]] = deque()
        self._guard: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="fulcrum-journal", daemon=True)
        self.faults = 0
        """Ticks that failed, for health."""
        self.failing: str | None = None
        """Why the last tick failed; None when it did not."""

    @property
    def writer(self) -> str:
        """The writer whose chains this journal extends."""
        return self._log.writer

    def start(self) -> None:
        """Begin; reservations of this writer are renewed from now on."""
        self._thread.start()
        self._renew()
        self._look_after()

    async def admit(
        self,
        reserve: Reserve | None,
        build: Callable[[Outcome | None], RecordDraft],
        abandon: Callable[[Outcome | None], None],
    ) -> Outcome | None:
        """Reserve and record in one step; returns once the record is durable.

        `build` makes the `decided` record from the ledger's outcome; it runs on the journal's thread. `abandon` is
        called on the loop instead of returning when the waiting task was cancelled meanwhile: the decision stands in
        the log, and the call must be settled as one that was never sent.

        Raises:
            Unavailable: the ledger or the log failed; nothing is held and the call must be denied.
        """
        if self._closing:
            raise Unavailable("journal: shutting down; send the call again")
        future: asyncio.Future[Outcome | None] = self._loop.create_future()
        self._queue.put(_Admission(reserve, build, abandon, future))
        try:
            return await future
        except asyncio.CancelledError:
            # Cancelled after `_wake` had set the outcome, before this task ran again.
            if future.done() and not future.cancelled() and future.exception() is None:
                abandon(future.result())
            raise

    async def run(self, work: Callable[[], Any]) -> Any:
        """Run a synchronous port's method on the journal's thread, before this tick's transaction."""
        if self._closing:
            raise Unavailable("journal: shutting down; send the call again")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Errand(work, future))
        return await future

    def settle(self, settlement: Settlement) -> None:
        """Queue a settlement; it is durable within a tick, and nobody waits for it."""
        self._settlements.append(settlement)
        if not self._flush_armed:
            self._flush_armed = True
            self._loop.call_later(LINGER, self._flush)

    def _flush(self) -> None:
        self._flush_armed = False
        if self._settlements and not self._closing:
            self._queue.put(_Errand(_nothing, self._loop.create_future()))

    def _renew(self) -> None:
        if self._closing:
            return
        self._queue.put(_Errand(self._keep, self._loop.create_future()))
        self._renewal = self._loop.call_later(RENEW_EVERY, self._renew)

    def _look_after(self) -> None:
        """Deny what waits too long: a disk or a store that hangs must not hang the calls."""
        waiting, late = self._waiting, self._loop.time() - PATIENCE
        while waiting and (waiting[0][1].done() or waiting[0][0] < late):
            future = waiting.popleft()[1]
            if not future.done():
                self.failing = f"the journal has not answered for {PATIENCE:.0f} s; check the disk of the data folder"
                future.set_exception(Unavailable(self.failing))
        if not self._closing:
            self._guard = self._loop.call_later(PATIENCE / 10, self._look_after)

    def _keep(self) -> None:
        at = now_ns()
        try:
            self._ledger.apply([Renew(self.writer, at, RESERVATION_TTL), Expire(at)])
        except Unavailable as fault:
            _log.warning("reservations not renewed", reason=str(fault))

    async def close(self) -> None:
        """Commit what is queued and stop the thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        for timer in (self._renewal, self._guard):
            if timer is not None:
                timer.cancel()
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
        self._log.close()

    def _run(self) -> None:
        queue = self._queue
        ending = False
        while not ending:
            batch = [queue.get()]
            try:
                while True:
                    batch.append(queue.get_nowait())
            except Empty:
                pass
            ending = None in batch
            admissions = [item for item in batch if type(item) is _Admission]
            errands = [item for item in batch if type(item) is _Errand]
            settlements: list[Settlement] = []
            while self._settlements:
                settlements.append(self._settlements.popleft())
            for errand in errands:
                try:
                    errand.result = errand.work()
                except Exception as fault:  # noqa: BLE001 - handed to whoever awaits it
                    errand.fault = fault
            try:
                self._commit(admissions, settlements)
                self.failing = None
            except Exception as fault:  # noqa: BLE001 - fail closed: every call of this tick is denied
                self.faults += 1
                self.failing = str(fault)
                _log.error("tick failed", reason=self.failing, admissions=len(admissions))
                for admission in admissions:
                    admission.fault = fault
            waiting = [item for item in batch if item is not None]
            if waiting:
                self._loop.call_soon_threadsafe(_wake, waiting)

    def _commit(self, admissions: Sequence[_Admission], settlements: Sequence[Settlement]) -> None:
        operations: list[Operation] = [item.operation for item in settlements if item.operation is not None]
        settled = len(operations)
        operations.extend(admission.reserve for admission in admissions if admission.reserve is not None)
        try:
            outcomes = self._ledger.apply(operations) if operations else ()
        except Exception:
            # Nothing was applied: the settlements wait for the ledger to come back.
            self._settlements.extendleft(reversed(settlements))
            raise
        owed = self._owed
        for outcome in outcomes:
            if not isinstance(outcome, Refused) and outcome.events:
                owed.extend(ledger_event_draft(event) for event in outcome.events)
        owed.extend(_ends(settlements))
        reserved = iter(outcomes[settled:])
        drafts: list[RecordDraft] = []
        broken: list[_Admission] = []
        for admission in admissions:
            admission.outcome = None if admission.reserve is None else next(reserved)
            try:
                drafts.append(admission.build(admission.outcome))
            except Exception as fault:  # noqa: BLE001 - one call that cannot be recorded is denied, and only that one
                admission.fault = fault
                broken.append(admission)
        try:
            if owed or drafts:
                self._log.append([*owed, *drafts])
        except Exception:
            self._give_back(admissions)
            raise
        self._owed = []
        if broken:
            self._give_back(broken)

    def _give_back(self, admissions: Sequence[_Admission]) -> None:
        at = now_ns()
        releases = [
            Release(admission.reserve.call, admission.reserve.leg, at)
            for admission in admissions
            if admission.reserve is not None
            and isinstance(admission.outcome, Reserved)
            and not admission.outcome.repeated
        ]
        if releases:
            try:
                self._ledger.apply(releases)
            except Unavailable as fault:
                _log.warning("reservations not given back; they expire", reason=str(fault), count=len(releases))


def _ends(settlements: Sequence[Settlement]) -> Iterator[RecordDraft]:
    """The records of settlements; one that cannot be made stops no other."""
    for item in settlements:
        if item.build is not None:
            try:
                yield item.build()
            except Exception:  # noqa: BLE001 - logged; replay after this process ends records the call's outcome as unknown
                _log.exception("the end of a call could not be recorded")


def _nothing() -> None:
    return None


def _wake(items: Sequence["_Admission | _Errand"]) -> None:
    for item in items:
        future = item.future
        if future.done():
            if isinstance(item, _Admission) and item.fault is None:
                item.abandon(item.outcome)
            continue
        if item.fault is not None:
            fault = item.fault
            future.set_exception(fault if isinstance(fault, Unavailable) else Unavailable(f"journal: {fault}"))
            future.exception()  # marks it retrieved: errands that nobody awaits must not warn
        elif isinstance(item, _Admission):
            future.set_result(item.outcome)
        else:
            future.set_result(item.result)
