"""What the ledger's books ask of SQLite and write to it, statement by statement."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Operation, Refused, Reserve, Reserved, Scope

SECOND = 1_000_000_000
FIRST_OF_MONTH = int(datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp()) * SECOND
"""The day and the month of this moment begin at the same one."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "ledger.db")
    yield opened
    opened.close()


def reserve(call: str, period: str = "day", limit: int = 100) -> Reserve:
    budget = Budget("b1", "default", "calls", Scope("agent"), {"calls": limit}, period)
    return Reserve(call, 0, "default", "w1", (Match(budget, "a"),), Amounts(1), FIRST_OF_MONTH, 60)


def statements(store: SqliteStore, operations: list[Operation]) -> list[str]:
    """What `apply` executes."""
    seen: list[str] = []
    with store.transaction() as connection:
        connection.set_trace_callback(seen.append)
    store.ledger.apply(operations)
    with store.transaction() as connection:
        connection.set_trace_callback(None)
    return seen


def test_an_account_that_stays_in_its_window_leaves_the_index_of_ends_alone(store: SqliteStore) -> None:
    store.ledger.apply([reserve("c1")])
    seen = statements(store, [Commit("c1", 0, None, FIRST_OF_MONTH), reserve("c2")])
    assert any(text.startswith("UPDATE account SET committed=1, reserved=1") for text in seen)
    assert not [text for text in seen if "ends=" in text]


def test_an_end_that_moves_is_stored(store: SqliteStore) -> None:
    store.ledger.apply([reserve("c1")])
    store.ledger.apply([reserve("c2", "month")])
    ends = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * SECOND
    with store.transaction() as connection:
        assert connection.execute("SELECT ends, reserved FROM account").fetchall() == [(ends, 2)]
        assert connection.execute("SELECT id FROM account WHERE ends > 0 AND ends = ?", (ends,)).fetchone() == (1,)


def test_the_horizon_is_asked_for_where_an_account_is_missing_and_refuses_what_it_may_have_forgotten(
    store: SqliteStore,
) -> None:
    store.ledger.apply([reserve("c1")])
    assert not [text for text in statements(store, [reserve("c2")]) if "horizon" in text]
    with store.transaction() as connection:
        connection.execute("UPDATE horizon SET at = ?", (FIRST_OF_MONTH * 2,))
    other = Budget("b2", "default", "others", Scope("agent"), {"calls": 5, "bytes": 9}, "day")
    asked = Reserve("c3", 0, "default", "w1", (Match(other, "a"),), Amounts(1), FIRST_OF_MONTH, 60)
    assert sum("horizon" in text for text in statements(store, [asked])) == 1
    known, forgotten = store.ledger.apply([reserve("c4"), asked])
    assert isinstance(known, Reserved)
    assert isinstance(forgotten, Refused)
