"""The journal: nothing returns before it is durable, many calls share one step."""

import asyncio

import pytest
from journal_calls import TEN, Calls, draft, reached, spin, subjects
from journal_doubles import GatedLog, MoodyLedger
from live_stream import until

from fulcrum_mcp.core.budget import Amounts, Match, Refused, Reserve, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement

pytest_plugins = ["journal_rig"]
pytestmark = pytest.mark.anyio


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
