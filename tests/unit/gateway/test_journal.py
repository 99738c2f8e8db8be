"""The journal: nothing returns before it is durable, many calls share one step, a fault denies and gives back."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from journal_doubles import FarLedger, GatedLog, MoodyLedger
from live_stream import until

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Outcome, Refused, Reserve, Reserved, Scope
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement

pytestmark = pytest.mark.anyio

TEN = Budget("b1", "acme", "ten calls", Scope("tenant"), {"calls": 10}, thresholds=(10,))


@pytest.fixture
def log() -> GatedLog:
    return GatedLog()


@pytest.fixture
def ledger() -> MoodyLedger:
    return MoodyLedger()


@pytest.fixture
async def journal(log: GatedLog, ledger: MoodyLedger) -> AsyncIterator[Journal]:
    opened = Journal(ledger, log)
    opened.start()
    await opened.run(lambda: None)
    yield opened
    log.gate.set()
    await opened.close()


def reserve(call: str, budget: Budget | None = TEN) -> Reserve:
    matches = () if budget is None else (Match(budget, "acme"),)
    return Reserve(call, 0, "acme", "memory", matches, Amounts(), now_ns(), 90)


def draft(subject: str, kind: str = "decided") -> RecordDraft:
    return RecordDraft(new_id(), "acme", f"dev.fulcrum.tool_call.{kind}", subject, now_ns(), b"{}")


class Calls:
    """Admissions to one journal, and what became of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.abandoned: list[tuple[str, Outcome | None]] = []

    async def admit(self, call: str) -> Outcome | None:
        return await self._journal.admit(
            reserve(call), lambda _: draft(call), lambda outcome: self.abandoned.append((call, outcome))
        )

    def start(self, call: str) -> "asyncio.Task[Outcome | None]":
        return asyncio.create_task(self.admit(call))


def subjects(log: GatedLog, kind: str = "decided") -> list[str]:
    records: list[dict[str, Any]] = [json.loads(line) for line in log.lines]
    return [record["subject"] for record in records if record["type"].endswith(kind)]


async def reached(log: GatedLog) -> None:
    async with asyncio.timeout(5):
        await asyncio.to_thread(log.reached.wait, 5)


async def spin(times: int = 20) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_admission_returns_only_once_its_record_is_in_the_log(journal: Journal, log: GatedLog) -> None:
    log.gate.clear()
    task = Calls(journal).start("c1")
    await reached(log)
    await spin()
    assert not task.done()
    assert log.lines == []
    log.gate.set()
    assert isinstance(await task, Reserved)
    assert subjects(log) == ["c1"]


async def test_calls_that_come_together_share_one_transaction_and_one_append(
    journal: Journal, log: GatedLog, ledger: MoodyLedger
) -> None:
    calls = Calls(journal)
    log.gate.clear()
    first = calls.start("c0")
    await reached(log)
    rest = [calls.start(f"c{number}") for number in range(1, 40)]
    await spin()
    ledger.applied.clear()
    log.gate.set()
    outcomes = await asyncio.gather(first, *rest)
    assert sum(isinstance(outcome, Reserved) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 30
    assert log.sizes == [2, 39]  # each with the ledger's own event: the first threshold is crossed by c0
    assert len(ledger.applied) == 1
    assert subjects(log) == [f"c{number}" for number in range(40)]


async def test_log_that_fails_denies_within_a_second_and_gives_back(
    journal: Journal, log: GatedLog, ledger: MoodyLedger
) -> None:
    calls = Calls(journal)
    log.broken = "audit: no space left on device"
    async with asyncio.timeout(1):
        with pytest.raises(Unavailable, match="no space left"):
            await calls.admit("c1")
    assert ledger.open("memory") == []
    assert journal.failing == "audit: no space left on device"
    assert journal.faults == 1
    log.broken = None
    for number in range(10):
        assert isinstance(await calls.admit(f"again{number}"), Reserved), number
    assert journal.failing is None
    assert calls.abandoned == []


@pytest.mark.parametrize("fault", [Unavailable("ledger: locked"), RuntimeError("a bug")], ids=["unavailable", "bug"])
async def test_ledger_that_fails_denies_and_what_waits_for_it_is_not_recorded(
    journal: Journal, log: GatedLog, ledger: MoodyLedger, fault: Exception
) -> None:
    journal.settle(Settlement(None, lambda: draft("e0", "finished")))
    ledger.broken = fault
    journal.settle(Settlement(Commit("c0", 0, None, now_ns()), lambda: draft("e1", "finished")))
    with pytest.raises(Unavailable, match=str(fault)):
        await Calls(journal).admit("c1")
    await until(lambda: subjects(log, "finished"), "what needs no ledger is recorded")
    assert (subjects(log), subjects(log, "finished")) == ([], ["e0"])
    ledger.broken = None
    await Calls(journal).admit("c2")
    assert subjects(log) == ["c2"]
    assert subjects(log, "finished") == ["e0", "e1"]


async def test_settlements_survive_a_failing_log_and_are_written_once(
    journal: Journal, log: GatedLog, ledger: MoodyLedger
) -> None:
    calls = Calls(journal)
    await calls.admit("c1")
    log.broken = "full"
    journal.settle(Settlement(Commit("c1", 0, None, now_ns()), lambda: draft("c1", "finished")))
    with pytest.raises(Unavailable):
        await calls.admit("c2")
    with pytest.raises(Unavailable):
        await calls.admit("c3")
    log.broken = None
    await calls.admit("c4")
    assert subjects(log, "finished") == ["c1"]
    assert ledger.usage([TEN], now_ns())[0].committed == {"calls": 1}
    assert ledger.open("memory") == [("c4", 0)]


async def test_events_of_the_ledger_survive_a_failing_log(journal: Journal, log: GatedLog) -> None:
    log.broken = "full"
    with pytest.raises(Unavailable):
        await Calls(journal).admit("c1")
    log.broken = None
    await Calls(journal).admit("c2")
    assert subjects(log, "budget.threshold") == ["b1"]


async def test_settlement_without_a_call_is_written_by_itself(journal: Journal, log: GatedLog) -> None:
    log.reached.clear()
    journal.settle(Settlement(None, lambda: draft("c1", "finished")))
    await reached(log)
    await until(lambda: subjects(log, "finished"), "written")
    assert subjects(log, "finished") == ["c1"]


async def test_call_cancelled_while_it_is_recorded_is_abandoned_with_its_outcome(
    journal: Journal, log: GatedLog
) -> None:
    calls = Calls(journal)
    log.gate.clear()
    task = calls.start("c1")
    await reached(log)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls.abandoned == []
    log.gate.set()
    await until(lambda: calls.abandoned, "abandoned")
    assert [(call, type(outcome)) for call, outcome in calls.abandoned] == [("c1", Reserved)]


async def test_call_cancelled_in_the_moment_of_its_waking_is_abandoned_too(journal: Journal, log: GatedLog) -> None:
    calls = Calls(journal)
    log.gate.clear()
    blocker = calls.start("c0")
    await reached(log)

    async def wakes_first() -> None:
        await calls.admit("c1")
        victim.cancel()

    first = asyncio.create_task(wakes_first())
    await spin()
    victim = calls.start("c2")
    await spin()
    log.gate.set()
    await asyncio.gather(blocker, first)
    with pytest.raises(asyncio.CancelledError):
        await victim
    assert [(call, type(outcome)) for call, outcome in calls.abandoned] == [("c2", Reserved)]


async def test_cancelled_call_of_a_failed_tick_is_not_abandoned(journal: Journal, log: GatedLog) -> None:
    calls = Calls(journal)
    log.gate.clear()
    log.broken = "full"
    task = calls.start("c1")
    await reached(log)
    task.cancel()
    log.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: journal.faults, "the tick has failed")
    await spin()
    assert calls.abandoned == []


async def test_record_that_cannot_be_made_denies_its_own_call_only(
    journal: Journal, log: GatedLog, ledger: MoodyLedger
) -> None:
    calls = Calls(journal)
    log.gate.clear()
    blocker = calls.start("c0")
    await reached(log)

    def build(_: Outcome | None) -> RecordDraft:
        raise RecursionError("too deep")

    journal.settle(Settlement(Commit("c0", 0, None, now_ns()), lambda: draft("c0", "finished")))
    bad = asyncio.create_task(journal.admit(reserve("bad"), build, lambda _: None))
    good = calls.start("good")
    await spin()
    log.gate.set()
    with pytest.raises(Unavailable, match="too deep"):
        await bad
    assert isinstance(await good, Reserved)
    await blocker
    assert subjects(log) == ["c0", "good"]
    assert subjects(log, "finished") == ["c0"]
    assert ledger.open("memory") == [("good", 0)]


async def test_end_that_cannot_be_recorded_harms_nobody_else(
    journal: Journal, log: GatedLog, ledger: MoodyLedger
) -> None:
    calls = Calls(journal)
    await calls.admit("c1")

    def build() -> RecordDraft:
        raise RuntimeError("no key")

    journal.settle(Settlement(Commit("c1", 0, None, now_ns()), build))
    assert isinstance(await calls.admit("c2"), Reserved)
    assert isinstance(await calls.admit("c3"), Reserved)
    assert subjects(log) == ["c1", "c2", "c3"]
    assert ledger.open("memory") == [("c2", 0), ("c3", 0)]


async def test_errand_brings_its_result_or_its_fault_to_the_caller(journal: Journal) -> None:
    assert await journal.run(lambda: 7) == 7
    with pytest.raises(Unavailable, match="history: gone"):
        await journal.run(_raise)


def _raise() -> None:
    raise Unavailable("history: gone")


async def test_start_expires_what_was_not_renewed_and_renews_its_own(log: GatedLog, ledger: MoodyLedger) -> None:
    long_ago = now_ns() - 1000 * 10**9
    ledger.apply([Reserve("old", 0, "acme", "dead", (Match(TEN, "acme"),), Amounts(), long_ago, 90)])
    ledger.apply([Reserve("mine", 0, "acme", "memory", (Match(TEN, "acme"),), Amounts(), long_ago, 90)])
    journal = Journal(ledger, log)
    journal.start()
    await journal.run(lambda: None)
    assert ledger.open("dead") == []
    assert ledger.open("memory") == [("mine", 0)]
    assert ledger.usage([TEN], now_ns())[0].committed == {"calls": 1}
    await journal.close()


async def test_close_commits_what_is_queued_and_then_denies(log: GatedLog, ledger: MoodyLedger) -> None:
    journal = Journal(ledger, log)
    journal.start()
    calls = Calls(journal)
    task = calls.start("c1")
    journal.settle(Settlement(None, lambda: draft("c0", "finished")))
    await asyncio.sleep(0)
    await journal.close()
    await journal.close()
    assert isinstance(await task, Reserved)
    assert (subjects(log), subjects(log, "finished")) == (["c1"], ["c0"])
    for work in (calls.admit("c2"), journal.run(lambda: None)):
        with pytest.raises(Unavailable, match="shutting down"):
            await work
    assert journal.writer == "memory"


async def test_a_call_that_needs_no_ledger_goes_on_while_it_fails(
    journal: Journal, ledger: MoodyLedger, log: GatedLog
) -> None:
    ledger.broken = Unavailable("down")
    journal.settle(Settlement(Commit("before", 0, None, now_ns()), lambda: draft("before", "finished")))
    free = journal.admit(None, lambda _: draft("free"), lambda _: None)
    needing = journal.admit(reserve("needing"), lambda _: draft("needing"), lambda _: None)
    answers = await asyncio.gather(free, needing, return_exceptions=True)
    assert answers[0] is None
    assert isinstance(answers[1], Unavailable)
    ledger.broken = None
    assert await journal.admit(reserve("after"), lambda _: draft("after"), lambda _: None) is not None
    await until(lambda: any(b'"before"' in line for line in log.lines), "what was owed is recorded")
    assert not any(b'"needing"' in line for line in log.lines)


@pytest.fixture
async def far(log: GatedLog) -> AsyncIterator[tuple[Journal, FarLedger]]:
    ledger = FarLedger()
    opened = Journal(ledger, log)
    opened.start()
    await opened.run(lambda: None)
    yield opened, ledger
    ledger.gate.set()
    ledger.broken = None
    await opened.close()


async def test_what_needs_no_ledger_does_not_wait_for_one_that_hangs(
    far: tuple[Journal, FarLedger], log: GatedLog
) -> None:
    journal, ledger = far
    ledger.gate.clear()
    needing = Calls(journal).start("needing")
    await until(ledger.asked.is_set, "the ledger is asked")

    async def free(name: str) -> None:
        async with asyncio.timeout(0.5):
            await journal.admit(None, lambda _: draft(name), lambda _: None)
        journal.settle(Settlement(None, lambda: draft(name, "finished")))

    for number in range(5):
        await free(f"free{number}")
    await until(lambda: len(subjects(log, "finished")) == 5, "their ends are recorded")
    assert not needing.done()
    ledger.gate.set()
    assert isinstance(await needing, Reserved)
    assert subjects(log)[-1] == "needing"


async def test_heads_are_told_while_no_reservation_is_on_its_way(far: tuple[Journal, FarLedger], log: GatedLog) -> None:
    journal, ledger = far
    ledger.gate.clear()
    call = Calls(journal).start("c1")
    await until(ledger.asked.is_set, "the ledger is asked")
    heads = asyncio.create_task(journal.heads())
    await spin()
    assert not heads.done()
    log.reached.clear()
    log.gate.clear()
    ledger.gate.set()
    await reached(log)
    await spin()
    assert not heads.done()
    later = Calls(journal).start("c2")
    log.gate.set()
    assert set((await heads).values()) == {len(log.lines)}
    assert isinstance(await call, Reserved)
    assert isinstance(await later, Reserved)


async def test_heads_wait_for_the_end_of_a_call_that_the_ledger_has_settled(
    far: tuple[Journal, FarLedger], log: GatedLog
) -> None:
    """Books that are made from the trail without it would keep the estimate for ever."""
    journal, _ = far
    await Calls(journal).admit("c1")
    log.reached.clear()
    log.gate.clear()
    journal.settle(Settlement(Commit("c1", 0, None, now_ns()), lambda: draft("c1", "finished")))
    free = asyncio.create_task(journal.admit(None, lambda _: draft("free"), lambda _: None))
    await reached(log)
    await until(lambda: len(journal._ended) == 1, "the ledger has settled it")
    heads = asyncio.create_task(journal.heads())
    await spin()
    log.gate.set()
    stood = await heads
    assert subjects(log, "finished") == ["c1"]
    assert set(stood.values()) == {len(log.lines)}
    await free


async def test_ledger_that_works_again_is_known_without_a_call(far: tuple[Journal, FarLedger]) -> None:
    journal, ledger = far
    ledger.broken = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        await Calls(journal).admit("c1")
    await journal.admit(None, lambda _: draft("free"), lambda _: None)
    assert journal.failing == "down", "the log works, the ledger does not"
    ledger.broken = None
    await until(lambda: journal.failing is None, "it is asked again")


async def test_close_ends_while_the_ledger_fails(log: GatedLog) -> None:
    ledger = FarLedger()
    journal = Journal(ledger, log)
    journal.start()
    await Calls(journal).admit("c1")
    ledger.broken = Unavailable("down")
    journal.settle(Settlement(Commit("c1", 0, None, now_ns()), lambda: draft("c1", "finished")))
    async with asyncio.timeout(3):
        await journal.close()
    assert subjects(log, "finished") == []
