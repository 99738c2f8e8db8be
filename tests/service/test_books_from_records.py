"""What a ledger had spent and the books that are made from its records say the same, whatever became of the calls."""

import random
from collections import Counter

import pytest

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.core.books import book_of
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Rate, Reserve, Reserved, Scope
from fulcrum_mcp.core.call import Call, Context, Principal, Tool
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.gateway.records import decided_draft, finished_draft
from fulcrum_mcp.ports import ArchivedRecord
from fulcrum_mcp.processor.archived import archived

pytestmark = [pytest.mark.service, pytest.mark.parts]

NOW = 1_800_000_000 * 1_000_000_000
DAILY = Budget("b1", "acme", "daily", Scope("agent"), {"usd_micros": 3_000, "tokens": 900}, "day")
SHARED = Budget("b2", "", "shared", Scope("global"), {"calls": 90, "bytes": 10**9}, "infinite")
PACED = Budget("b3", "acme", "paced", Scope("tool"), rate=Rate(1000, 1, 1000))
BUDGETS = (DAILY, SHARED, PACED)


class Gateway:
    """Reserves, records and settles as the journal does; some calls never end."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ledger = MemoryLedger()
        self.chain = ChainWriter("w1", "acme")
        self.records: list[ArchivedRecord] = []
        self.admitted: Counter[str] = Counter()

    def call(self, number: int) -> None:
        agent = f"bot{number % 3}"
        who = Principal("acme", agent, "k1", (), frozenset())
        call = Call(f"call_{number}", who, "tools/call", "files", "read", {}, Context(envelope=agent), Tool("read"))
        amounts = Amounts(1, self.chance.randrange(100), self.chance.randrange(20), 3)
        matches = (Match(DAILY, agent), Match(SHARED, "global"), Match(PACED, "files__read"))
        reserve = Reserve(call.id, 0, "acme", "w1", matches, amounts, NOW + number, 90)
        held = isinstance(self.ledger.apply([reserve])[0], Reserved)
        decision = Decision("allow" if held else "deny", taints=(f"t{number % 5}",) if held else ())
        self._record(
            decided_draft(
                call,
                f"dec_{number}",
                decision,
                at=NOW + number,
                snapshot="s",
                reserve=reserve,
                held=held,
                arguments_mac="",
                inputs=None,
                duration_us=1,
            )
        )
        if not held:
            return
        self.admitted[f"envelope:{agent}"] += 1
        fate = self.chance.random()
        if fate < 0.2:
            self.ledger.apply([Commit(call.id, 0, None, NOW)])  # what counts when nobody says what it cost
            return
        actual = Amounts(1, self.chance.randrange(150), 5, 5, 700, 1) if fate < 0.8 else Amounts(0)
        self.ledger.apply([Commit(call.id, 0, actual, NOW)])
        self._record(
            finished_draft(
                call,
                f"dec_{number}",
                outcome="ok",
                is_error=False,
                result_mac="",
                size=1,
                duration_us=1,
                cost={},
                charged=actual,
            )
        )

    def _record(self, draft: RecordDraft) -> None:
        line, _ = self.chain.add(draft)
        record = archived(line)
        assert isinstance(record, ArchivedRecord), record
        self.records.append(record)


@pytest.mark.parametrize("seed", range(3))
def test_the_books_are_those_of_the_ledger_that_was_lost(postgres_database: Database, seed: int) -> None:
    gateway = Gateway(seed)
    for number in range(150):
        gateway.call(number)
    assert 0 < sum(gateway.admitted.values()) < 150, "some are refused"
    gateway.chance.shuffle(gateway.records)
    archive = PostgresArchive(postgres_database)
    for begin in range(0, len(gateway.records), 17):
        assert archive.store(gateway.records[begin : begin + 17], []) == []
        assert archive.store(gateway.records[begin : begin + 29], []) == [], "what comes again counts for nothing"
    books = PostgresWriters(postgres_database).books(BUDGETS, NOW + 1000)
    wanted = {
        (use.budget.id, use.bucket, name): amount
        for use in gateway.ledger.usage(BUDGETS, NOW)
        for name, amount in use.committed.items()
    }
    made = {(key[1], key[2], key[3]): account.committed for key, account in book_of(books, BUDGETS).accounts.items()}
    assert {key: amount for key, amount in made.items() if amount} == {k: n for k, n in wanted.items() if n}
    assert {subject: calls for _, subject, _, calls, _ in books.past.calls} == gateway.admitted
    assert len(books.past.taints) == 15
