"""The journal when something fails: the call is denied, what it held is given back, nobody else is harmed."""

import asyncio

import pytest
from journal_calls import TEN, Calls, draft, reached, reserve, spin, subjects
from journal_doubles import GatedLog, MoodyLedger
from live_stream import until

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Commit, Outcome, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement

pytest_plugins = ["journal_rig"]
pytestmark = pytest.mark.anyio


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
