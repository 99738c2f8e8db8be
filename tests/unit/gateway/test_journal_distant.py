"""The journal over a log whose durable step is taken elsewhere, and when what nobody waits for is written."""

import asyncio

import pytest
from journal_calls import Calls, draft, reached, spin, subjects
from journal_doubles import DistantGatedLog, MoodyLedger
from live_stream import until

from fulcrum_mcp.core.budget import Commit, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.ports import DistantLog

pytest_plugins = ["journal_rig"]
pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> DistantGatedLog:
    made = DistantGatedLog()
    assert isinstance(made, DistantLog)
    return made


def settled(call: str) -> Settlement:
    return Settlement(Commit(call, 0, None, now_ns()), lambda: draft(call, "finished"))


async def test_admission_returns_only_once_it_is_told_and_no_thread_of_ours_waits(
    journal: Journal, log: DistantGatedLog
) -> None:
    log.gate.clear()
    first = Calls(journal).start("c1")
    await reached(log)
    rest = [Calls(journal).start(f"c{number}") for number in range(2, 6)]
    await spin()
    assert not first.done()
    log.gate.set()
    assert all(isinstance(outcome, Reserved) for outcome in await asyncio.gather(first, *rest))
    assert [size for size in log.sizes if size > 1] != [], "what came meanwhile shares a step"
    assert subjects(log) == [f"c{number}" for number in range(1, 6)]
    assert log.threads == {"elsewhere"}


async def test_fault_that_is_told_denies_gives_back_and_keeps_what_is_owed(
    journal: Journal, log: DistantGatedLog, ledger: MoodyLedger
) -> None:
    await Calls(journal).admit("c1")
    log.broken = "no acknowledgement in time"
    journal.settle(settled("c1"))
    with pytest.raises(Unavailable, match="no acknowledgement"):
        await Calls(journal).admit("c2")
    assert ledger.open("memory") == []
    assert journal.failing == "no acknowledgement in time"
    log.broken = None
    await Calls(journal).admit("c3")
    assert (subjects(log), subjects(log, "finished")) == (["c1", "c3"], ["c1"])


async def test_close_waits_for_what_was_begun(journal: Journal, log: DistantGatedLog) -> None:
    log.gate.clear()
    call = Calls(journal).start("c1")
    await reached(log)
    journal.settle(settled("c0"))
    closing = asyncio.create_task(journal.close())
    await spin()
    assert not closing.done()
    log.gate.set()
    await closing
    assert isinstance(await call, Reserved)
    assert subjects(log, "finished") == ["c0"]


async def test_end_of_a_call_waits_its_own_time_for_the_next_call_to_share_its_step(
    journal: Journal, log: DistantGatedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of its own would hold up the call that comes just then for a whole round trip."""
    monkeypatch.setattr("fulcrum_mcp.gateway.journal.LINGER", 3600.0)
    journal.settle(settled("c0"))
    await Calls(journal).admit("c1")
    steps = len(log.sizes)
    journal.settle(settled("c1"))
    journal._linger_over()  # the timer of c0's end, which c1 took with it
    await spin()
    assert len(log.sizes) == steps
    await Calls(journal).admit("c2")
    assert len(log.sizes) == steps + 1
    assert log.sizes[-1] == 2
    assert subjects(log, "finished") == ["c0", "c1"]


async def test_end_of_a_call_that_nobody_follows_has_a_step_of_its_own_after_its_time(
    journal: Journal, log: DistantGatedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Calls(journal).admit("c1")
    journal.settle(settled("c1"))
    await until(lambda: subjects(log, "finished") == ["c1"], "written by itself")
    monkeypatch.setattr("fulcrum_mcp.gateway.journal.LINGER", 0.05)
    journal.settle(settled("c2"))
    journal._linger_over()  # too early: armed again for what is left
    await until(lambda: subjects(log, "finished") == ["c1", "c2"], "written by itself")
