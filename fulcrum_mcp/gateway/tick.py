"""What waits in the journal and what a tick of it carries: calls to be admitted, ends of calls, their records."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Commit, Outcome, Release, Reserve
from fulcrum_mcp.errors import Unavailable

__all__ = ["Admission", "Settlement", "Tick", "ends_of", "wake"]

_log = structlog.get_logger("fulcrum.journal")


class Admission:
    """A call that waits for its reservation and its record."""

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
        self.fault: Exception | None = None


class Settlement:
    """How a call ended: a ledger operation and the record that says so, made when the tick comes."""

    __slots__ = ("build", "operation")

    def __init__(self, operation: Commit | Release | None, build: Callable[[], RecordDraft] | None) -> None:
        self.operation = operation
        self.build = build


class Tick(NamedTuple):
    """What the writer thread is given."""

    admissions: list[Admission]
    owed: list[RecordDraft]
    block: Any


def ends_of(settlements: Sequence[Settlement]) -> Iterator[RecordDraft]:
    """The records of settlements; one that cannot be made stops no other."""
    for item in settlements:
        if item.build is not None:
            try:
                yield item.build()
            except Exception:  # noqa: BLE001 - logged; replay after this process ends records the call's outcome as unknown
                _log.exception("the end of a call could not be recorded")


def wake(admissions: Sequence[Admission]) -> None:
    """Tell everybody who waits what became of it."""
    for item in admissions:
        future = item.future
        if future.done():
            if item.fault is None:
                item.abandon(item.outcome)
            continue
        if item.fault is None:
            future.set_result(item.outcome)
            continue
        fault = item.fault
        future.set_exception(fault if isinstance(fault, Unavailable) else Unavailable(f"journal: {fault}"))
