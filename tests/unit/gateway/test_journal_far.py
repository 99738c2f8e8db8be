"""The journal over a ledger across the network, which hangs and fails by itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from journal_calls import Calls, draft, reached, spin, subjects
from journal_doubles import FarLedger, GatedLog
from live_stream import until

from fulcrum_mcp.core.budget import Commit, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway import journal as journal_module
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement

pytest_plugins = ["journal_rig"]
pytestmark = pytest.mark.anyio

LONG = 30.0


@pytest.fixture
async def far(log: GatedLog, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Journal, FarLedger]]:
    monkeypatch.setattr(journal_module, "SHARED_PATIENCE", LONG)  # what hangs here hangs until a test lets it go
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
        async with asyncio.timeout(LONG / 2):
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


async def test_what_needs_no_ledger_does_not_wait_with_heads_for_one_that_hangs(
    far: tuple[Journal, FarLedger], log: GatedLog
) -> None:
    journal, ledger = far
    ledger.gate.clear()
    call = Calls(journal).start("c1")
    await until(ledger.asked.is_set, "the ledger is asked")
    heads = asyncio.create_task(journal.heads())
    await spin()
    async with asyncio.timeout(LONG / 2):
        await journal.admit(None, lambda _: draft("free"), lambda _: None)
    assert not heads.done()
    ledger.gate.set()
    assert set((await heads).values()) == {len(log.lines)}
    assert isinstance(await call, Reserved)


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


async def settling_with_a_ledger_that_fails(log: GatedLog) -> tuple[Journal, FarLedger]:
    ledger = FarLedger()
    journal = Journal(ledger, log)
    journal.start()
    await Calls(journal).admit("c1")
    ledger.broken = Unavailable("down")
    journal.settle(Settlement(Commit("c1", 0, None, now_ns()), lambda: draft("c1", "finished")))
    return journal, ledger


async def test_close_tells_a_ledger_that_failed_for_a_moment_what_is_settled(log: GatedLog) -> None:
    """What nobody gives back counts until it runs out."""
    journal, ledger = await settling_with_a_ledger_that_fails(log)
    asyncio.get_running_loop().call_later(0.2, setattr, ledger, "broken", None)
    await journal.close()
    assert subjects(log, "finished") == ["c1"]
    assert ledger.open("memory") == []


async def test_close_ends_while_the_ledger_fails(log: GatedLog) -> None:
    journal, _ = await settling_with_a_ledger_that_fails(log)
    async with asyncio.timeout(LONG):
        await journal.close()
    assert subjects(log, "finished") == []
