"""A ledger that lost its books serves again only when the store has everything that living writers wrote."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from live_stream import until

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.shared import MemoryRegistry, MemorySharedLedger
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.books import Books, Place, Spent, Unsettled
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Refused, Reserve, Reserved, Scope
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.keeper import FencedLedger, LedgerKeeper
from fulcrum_mcp.gateway.lease import Hearing, Lease, lease_clock

TEN = Budget("b1", "acme", "ten", Scope("tenant"), {"calls": 10}, period="infinite")
PLACE = Place("acme", "b1", "acme", 0)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Rig:
    def __init__(self) -> None:
        self.ledger = MemorySharedLedger()
        self.registry = MemoryRegistry()
        self.log = MemoryAuditLog("w1")
        self.fence = FencedLedger(self.ledger)
        self.journal = Journal(self.fence, self.log)
        self.keeper = LedgerKeeper(self.ledger, self.fence, self.registry, self.journal, lambda: [TEN])


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.keeper.close(retire=True)
    await made.journal.close()


def reserve(call: str) -> Reserve:
    return Reserve(call, 0, "acme", "w1", (Match(TEN, "acme"),), Amounts(1), now_ns(), 90)


async def test_nothing_is_reserved_before_the_writer_is_known(rig: Rig) -> None:
    rig.ledger.rebuild("1", rig.ledger._book, Books(0).past, 0)
    with pytest.raises(Unavailable, match="not known to the store"):
        rig.fence.apply([reserve("a")])
    assert await rig.keeper.turn() is None
    assert isinstance(rig.fence.apply([reserve("a")])[0], Reserved)


async def test_why_nothing_is_reserved_is_said_where_it_is_known(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch() -> tuple[str, bool]:
        raise Unavailable("these are the books of others")

    monkeypatch.setattr(rig.ledger, "epoch", epoch)
    rig.keeper.start()
    await until(lambda: rig.fence.waiting is not None, "the fence knows why")
    with pytest.raises(Unavailable, match="books of others"):
        rig.fence.apply([reserve("a")])


async def test_an_empty_installation_begins_with_empty_books(rig: Rig) -> None:
    assert await rig.keeper.turn() is None
    assert isinstance(rig.fence.apply([reserve("a")])[0], Reserved)


async def test_lost_books_wait_for_every_living_writer_and_for_the_store(rig: Rig) -> None:
    assert await rig.keeper.turn() is None
    rig.log.append([RecordDraft(new_id(), "acme", "t", "s", now_ns(), b"{}")] * 3)
    rig.registry.beat("w2", now_ns())
    rig.registry.beat("w3", now_ns() - 61 * 10**9)
    rig.ledger.lose()
    with pytest.raises(Unavailable, match="rebuilt"):
        rig.fence.apply([reserve("b")])
    assert "chain w1.acme is not stored up to 3" in (await rig.keeper.turn() or "")
    rig.registry.stored["w1.acme"] = 2
    assert "w1.acme" in (await rig.keeper.turn() or "")
    rig.registry.stored["w1.acme"] = 3
    assert "writer w2 has not said" in (await rig.keeper.turn() or "")
    rig.registry.declare("w2", "2", {}, now_ns())
    assert await rig.keeper.turn() is None


async def test_open_calls_count_as_spent_until_they_tell_their_cost(rig: Rig) -> None:
    rig.registry.known = Books(
        0, (Spent(PLACE, Amounts(6)),), (Unsettled("open", 0, "acme", "w1", Amounts(3), (PLACE,)),)
    )
    assert await rig.keeper.turn() is None
    assert isinstance(rig.fence.apply([reserve("a")])[0], Reserved)
    assert isinstance(rig.fence.apply([reserve("b")])[0], Refused)
    rig.fence.apply([Commit("open", 0, Amounts(1), now_ns())])
    outcomes = rig.fence.apply([reserve("c"), reserve("d"), reserve("e")])
    assert [isinstance(outcome, Reserved) for outcome in outcomes] == [True, True, False]


async def test_books_count_what_was_spent_on_budgets_that_only_another_gateway_has(rig: Rig) -> None:
    other = FencedLedger(rig.ledger)
    journal = Journal(other, MemoryAuditLog("w2"))
    keeper = LedgerKeeper(rig.ledger, other, rig.registry, journal, lambda: [TEN], own=[TEN])
    stranger = LedgerKeeper(rig.ledger, rig.fence, rig.registry, rig.journal, list)
    assert await keeper.turn() is None
    rig.registry.known = Books(0, (Spent(PLACE, Amounts(10)),))
    rig.ledger.lose()
    assert "w2" in (await stranger.turn() or "")
    rig.registry.retire("w2")
    assert await stranger.turn() is None
    assert isinstance(rig.fence.apply([reserve("b")])[0], Refused)
    await journal.close()


async def test_the_keeper_rebuilds_by_itself_and_calls_are_denied_meanwhile(rig: Rig) -> None:
    rig.journal.start()
    rig.keeper.start()
    await until(lambda: rig.keeper.waiting is None, "the ledger serves")
    rig.ledger.lose()
    rig.registry.beat("w2", now_ns())
    with pytest.raises(Unavailable):
        await rig.journal.admit(
            reserve("a"), lambda _: RecordDraft(new_id(), "acme", "t", "s", 1, b"{}"), lambda _: None
        )
    await until(lambda: rig.keeper.waiting is not None, "the ledger waits")
    rig.registry.retire("w2")
    await until(lambda: rig.keeper.waiting is None, "the ledger serves")
    admitted = rig.journal.admit(
        reserve("a"), lambda _: RecordDraft(new_id(), "acme", "t", "s", 1, b"{}"), lambda _: None
    )
    assert isinstance(await asyncio.wait_for(admitted, 5), Reserved)


async def test_what_a_dead_process_of_this_writer_held_is_committed_before_anything_is_reserved(rig: Rig) -> None:
    rig.ledger.rebuild("1", rig.ledger._book, Books(0).past, 0)
    rig.ledger.apply([reserve("left")])
    rig.journal.start()
    assert await rig.keeper.turn() is None
    await until(lambda: not rig.ledger.open("w1"), "the left reservation is settled")
    assert rig.ledger.usage([TEN], now_ns())[0].committed == {"calls": 1}


async def test_a_writer_without_a_spool_may_write_as_long_as_the_store_hears_it(rig: Rig) -> None:
    lease, lost = Lease(), list[str]()
    registry = MemoryRegistry()
    keeper = LedgerKeeper(
        rig.ledger, rig.fence, registry, rig.journal, lambda: [TEN], lease, lambda: lost.append("lost")
    )
    assert lease.fault() is not None
    assert await keeper.turn() is None
    assert lease.fault() is None
    registry.beat("other", now_ns() + 120 * 10**9, streamed=True)
    assert registry.claim("other", now_ns() + 120 * 10**9, 0.0) == "w1"
    keeper._beat_at = 0.0
    keeper.start()
    await until(lambda: bool(lost), "it is told")
    assert lease.ended
    await keeper.close(retire=True)


async def test_the_store_hears_of_a_writer_also_while_the_ledger_is_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> tuple[str, bool]:
        raise Unavailable("the ledger is away")

    lease = Lease()
    keeper = LedgerKeeper(rig.ledger, rig.fence, rig.registry, rig.journal, lambda: [TEN], lease)
    monkeypatch.setattr(rig.ledger, "epoch", away)
    with pytest.raises(Unavailable, match="away"):
        await keeper.turn()
    assert lease.fault() is None


async def test_a_gateway_that_nobody_hears_reserves_nothing_and_settles(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(writer: str, at: int, *, streamed: bool = False) -> bool:
        raise Unavailable(f"the store is away: {writer} {at} {streamed}")

    stream: list[str] = []
    hearing = Hearing(lambda: stream[0] if stream else None)
    fence = FencedLedger(rig.ledger, hearing.fault)
    keeper = LedgerKeeper(rig.ledger, fence, rig.registry, rig.journal, lambda: [TEN], hearing=hearing)
    assert await keeper.turn() is None
    assert isinstance(fence.apply([reserve("a")])[0], Reserved)
    hearing.heard(lease_clock() - 45.0)
    assert isinstance(fence.apply([reserve("b")])[0], Reserved)
    stream.append("refused")
    with pytest.raises(Unavailable, match=r"Postgres has not heard.*NATS takes no records.*refused"):
        fence.apply([reserve("c")])
    fence.apply([Commit("a", 0, None, now_ns())])
    assert rig.ledger.usage([TEN], now_ns())[0].committed == {"calls": 1}
    keeper._beat_at = 0.0
    with monkeypatch.context() as patched:
        patched.setattr(rig.registry, "beat", away)
        assert await keeper.turn() is None
    with pytest.raises(Unavailable):
        fence.apply([reserve("c")])
    keeper._beat_at = 0.0
    assert await keeper.turn() is None
    assert isinstance(fence.apply([reserve("c")])[0], Reserved)
