"""Every ledger there is, one after the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.redis_books import REAL, open_books

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.redis import RedisLedger
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.ports import BudgetLedger

__all__ = ["ledger"]


@pytest.fixture(params=["memory", "sqlite", *REAL])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BudgetLedger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    if request.param in {"valkey_url", "redis_url"}:
        books = open_books(request.getfixturevalue(request.param))
        yield RedisLedger(books)
        books.close()
        return
    store = SqliteStore(tmp_path / "ledger.db")
    yield store.ledger
    store.close()
