"""A broken chain holds up no rebuild of the ledger: what is stored counts, and so does what lost its place."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from servers.valkey import ValkeyServer

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.postgres import writers as module
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Reserve, Reserved, Scope
from fulcrum_mcp.core.call import Call, Context, Principal, Tool
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.keeper import FencedLedger, LedgerKeeper
from fulcrum_mcp.gateway.records import decided_draft, finished_draft
from fulcrum_mcp.ports import ArchivedRecord
from fulcrum_mcp.processor.archived import archived
from fulcrum_mcp.processor.verifying import Verifier

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]

EVER = Budget("b1", "acme", "ever", Scope("tenant"), {"calls": 100}, "infinite")
WHO = Principal("acme", "bot", "k1", (), frozenset())
CALLS = 20
CHAIN = "w1.acme"
FORKED = 9
"""The seq that two records want: the decision of the fifth call, and another one."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Log(MemoryAuditLog):
    """Says how far its gateway wrote the chain."""

    seq = 0

    def heads(self) -> Mapping[str, int]:
        return {CHAIN: self.seq}


class Site:
    """A gateway with its ledger on a real server, and the store that it is rebuilt from."""

    def __init__(self, database: Database, server: ValkeyServer, keys: AuditKeys) -> None:
        self.server = server
        self.books = RedisStore(RedisConfig(server.url))
        self.ledger = RedisLedger(self.books)
        self.fence = FencedLedger(self.ledger)
        self.journal = Journal(self.fence, log := Log("w1"))
        self.log = log
        self.writers = PostgresWriters(database)
        self.keeper = LedgerKeeper(self.ledger, self.fence, self.writers, self.journal, lambda: [EVER])
        self.archive = PostgresArchive(database)
        self.chains = PostgresChains(database)
        self.verifier = Verifier(self.chains, keys)
        self.drafts: list[RecordDraft] = []

    def call(self, number: int) -> None:
        """One that is admitted, forwarded and settled."""
        at = now_ns()
        call = Call(f"call_{number}", WHO, "tools/call", "files", "read", {}, Context(), Tool("read"))
        reserve = Reserve(call.id, 0, "acme", "w1", (Match(EVER, "acme"),), Amounts(1), at, 90)
        assert isinstance(self.fence.apply([reserve])[0], Reserved)
        self.fence.apply([Commit(call.id, 0, Amounts(1), at)])
        self.drafts += [_decided(call, at, reserve), _finished(call)]
        self.log.seq = len(self.drafts)

    def records(self) -> list[ArchivedRecord]:
        return _chained(self.drafts)

    def store(self, *records: ArchivedRecord) -> int:
        """How many lost their place to another one."""
        return len(self.archive.store(records, []))

    def fork(self) -> ArchivedRecord:
        """A record in another's place that continues the chain as the right one does."""
        call = Call("call_forged", WHO, "tools/call", "files", "read", {}, Context(), Tool("read"))
        return _chained([*self.drafts[: FORKED - 1], _decided(call, now_ns(), None)])[-1]

    async def lose_the_books(self) -> None:
        await asyncio.to_thread(self.server.restart, empty=True)

    def committed(self) -> int:
        (usage,) = self.ledger.usage([EVER], now_ns())
        return usage.committed["calls"]


def _decided(call: Call, at: int, reserve: Reserve | None) -> RecordDraft:
    return decided_draft(
        call,
        f"dec_{call.id}",
        Decision("allow"),
        at=at,
        snapshot="s",
        reserve=reserve,
        held=reserve is not None,
        arguments_mac="",
        inputs=None,
        duration_us=1,
    )


def _finished(call: Call) -> RecordDraft:
    return finished_draft(
        call,
        f"dec_{call.id}",
        outcome="ok",
        is_error=False,
        result_mac="",
        size=1,
        duration_us=1,
        cost={},
        charged=Amounts(1),
    )


def _chained(drafts: list[RecordDraft]) -> list[ArchivedRecord]:
    chain = ChainWriter("w1", "acme")
    found: list[ArchivedRecord] = []
    for draft in drafts:
        record = archived(chain.add(draft)[0])
        assert isinstance(record, ArchivedRecord), record
        found.append(record)
    return found


@pytest.fixture
async def site(postgres_database: Database, own_valkey: ValkeyServer, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(postgres_database, own_valkey, AuditKeys(tmp_path / "keys"))
    assert await made.keeper.turn() is None
    for number in range(CALLS):
        made.call(number)
    yield made
    await made.keeper.close(retire=True)
    await made.journal.close()
    made.books.close()


async def test_what_is_stored_and_what_lost_its_place_counts_and_nobody_waits(site: Site) -> None:
    records = site.records()
    forged = site.fork()
    assert forged.prev == records[FORKED - 1].prev
    assert site.store(*records[: FORKED - 1], forged) == 0
    assert site.store(*records) == 1
    assert site.store(*records, records[FORKED - 1]) == 1, "what comes again is still another one, and counts once"
    assert site.verifier.step() is not None
    state = site.chains.load()
    assert (state.chains[CHAIN].size, set(state.broken)) == (FORKED, {CHAIN})
    await site.lose_the_books()
    assert await site.keeper.turn() is None
    assert site.committed() == CALLS


async def test_a_record_that_is_missing_is_waited_for_also_behind_the_break(site: Site) -> None:
    records = site.records()
    site.store(*records[: FORKED - 1], site.fork())
    site.store(*records[:29], *records[30:])
    site.verifier.step()
    await site.lose_the_books()
    for _ in range(2):
        assert f"chain {CHAIN} is stored up to {FORKED} of {2 * CALLS}" in (await site.keeper.turn() or "")
    site.store(records[29])
    assert await site.keeper.turn() is None
    assert site.committed() == CALLS


async def test_a_long_chain_is_looked_through_in_steps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP", 7)
    site.store(*site.records())
    await site.lose_the_books()
    said: list[str | None] = []
    while not said or said[-1] is not None:
        assert len(said) < 10
        said.append(await site.keeper.turn())
    reached = [7, 14, 21, 28, 35]
    assert said == [
        *(f"its books are being rebuilt: chain {CHAIN} is stored up to {seq} of {2 * CALLS}" for seq in reached),
        None,
    ]
    assert site.committed() == CALLS
