"""KeyRepository and BudgetRepository: one suite over every adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fulcrum_adapters.memory.budgets import MemoryBudgets
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_adapters.postgres.budgets import PostgresBudgets
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.keys import PostgresKeys
from fulcrum_adapters.sqlite.budgets import SqliteBudgets
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_mcp.core.budget import Budget, Rate, Scope
from fulcrum_mcp.errors import Conflict, NotFound
from fulcrum_mcp.ports import ApiKey, BudgetRepository, KeyRepository


class Store(NamedTuple):
    keys: KeyRepository
    budgets: BudgetRepository


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        revision = MemoryRevision()
        yield Store(MemoryKeys(revision), MemoryBudgets(revision))
        return
    if request.param == "postgres":
        shared: Database = request.getfixturevalue("postgres_database")
        yield Store(PostgresKeys(shared), PostgresBudgets(shared))
        return
    database = ControlDatabase(tmp_path / "fulcrum.db")
    yield Store(SqliteKeys(database), SqliteBudgets(database))
    database.close()


def key(key_id: str = "k1", tenant: str = "default", at: int = 10) -> ApiKey:
    return ApiKey(key_id, tenant, "ana", "Ana's", ("reader", "ü"), ("tool:call",), at, at + 5, None, True, "ab" * 32)


def budget(budget_id: str = "b1", tenant: str = "default", name: str = "daily") -> Budget:
    limits = {"calls": 3, "usd_micros": 2**51}
    return Budget(
        budget_id, tenant, name, Scope("tool", "x"), limits, "90", "soft", (50,), "Europe/Paris", Rate(1, 2, 3)
    )


def test_a_key_comes_back_as_it_was_stored(store: Store) -> None:
    store.keys.add(key())
    assert store.keys.get("k1") == key()
    assert store.keys.get("k2") is None


def test_keys_are_listed_by_tenant_newest_first(store: Store) -> None:
    for made in (key("a", at=1), key("b", at=3), key("c", at=2), key("d", tenant="other")):
        store.keys.add(made)
    assert [found.id for found in store.keys.list("default")] == ["b", "c", "a"]


def test_a_taken_key_id_is_a_conflict_and_changes_nothing(store: Store) -> None:
    store.keys.add(key())
    before = store.budgets.revision()
    with pytest.raises(Conflict):
        store.keys.add(key(tenant="other"))
    assert store.keys.get("k1") == key()
    assert store.budgets.revision() == before


def test_revoking_twice_keeps_the_first_time(store: Store) -> None:
    store.keys.add(key())
    assert store.keys.revoke("default", "k1", 50).revoked_at == 50
    assert store.keys.revoke("default", "k1", 60).revoked_at == 50
    found = store.keys.get("k1")
    assert found is not None
    assert found.revoked_at == 50


def test_another_tenants_key_cannot_be_revoked(store: Store) -> None:
    store.keys.add(key())
    with pytest.raises(NotFound):
        store.keys.revoke("other", "k1", 50)
    with pytest.raises(NotFound):
        store.keys.revoke("default", "k2", 50)
    assert store.keys.get("k1") == key()


def test_a_budget_comes_back_as_it_was_stored(store: Store) -> None:
    store.budgets.add(budget())
    plain = Budget("b2", "default", "a plain one", Scope("agent"), {"calls": 1})
    store.budgets.add(plain)
    assert list(store.budgets.list("default")) == [plain, budget()]


def test_names_are_unique_in_a_tenant_only(store: Store) -> None:
    store.budgets.add(budget())
    with pytest.raises(Conflict):
        store.budgets.add(budget("b2"))
    store.budgets.add(budget("b3", tenant="other"))
    assert [found.id for found in store.budgets.list(None)] == ["b1", "b3"]


def test_another_tenants_budget_cannot_be_deleted(store: Store) -> None:
    store.budgets.add(budget())
    with pytest.raises(NotFound):
        store.budgets.delete("other", "b1")
    store.budgets.delete("default", "b1")
    with pytest.raises(NotFound):
        store.budgets.delete("default", "b1")
    assert list(store.budgets.list(None)) == []


def test_every_change_moves_the_revision_and_reading_does_not(store: Store) -> None:
    seen = [store.budgets.revision()]
    for change in (
        lambda: store.keys.add(key()),
        lambda: store.keys.revoke("default", "k1", 1),
        lambda: store.budgets.add(budget()),
        lambda: store.budgets.delete("default", "b1"),
    ):
        change()
        store.keys.get("k1")
        store.budgets.list(None)
        seen.append(store.budgets.revision())
    assert seen == sorted(set(seen))
