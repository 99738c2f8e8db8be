"""SwitchRepository, PolicyRepository and ConfigRepository: one suite over every adapter."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_adapters.postgres.budgets import PostgresBudgets
from fulcrum_adapters.postgres.configuration import PostgresConfiguration
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.keys import PostgresKeys
from fulcrum_adapters.postgres.policies import PostgresPolicies
from fulcrum_adapters.postgres.switches import PostgresSwitches
from fulcrum_adapters.sqlite.budgets import SqliteBudgets
from fulcrum_adapters.sqlite.config import SqliteConfig
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_adapters.sqlite.policies import SqlitePolicies
from fulcrum_adapters.sqlite.switches import SqliteSwitches
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.policy import PolicyModule, PolicySource, source_digest
from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch, SwitchKind
from fulcrum_mcp.errors import Conflict, NotFound
from fulcrum_mcp.ports import (
    ApiKey,
    BudgetRepository,
    ConfigRepository,
    KeyRepository,
    PolicyRepository,
    StoredPolicies,
    SwitchRepository,
)


class Store(NamedTuple):
    keys: KeyRepository
    budgets: BudgetRepository
    switches: SwitchRepository
    policies: PolicyRepository
    config: ConfigRepository


POSTGRES = pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        revision = MemoryRevision()
        config = MemoryConfig(revision)
        yield Store(MemoryKeys(revision), config.budgets, config.switches, config.policies, config)
        return
    if request.param == "postgres":
        shared: Database = request.getfixturevalue("postgres_database")
        yield Store(
            PostgresKeys(shared),
            PostgresBudgets(shared),
            PostgresSwitches(shared),
            PostgresPolicies(shared),
            PostgresConfiguration(shared),
        )
        return
    database = ControlDatabase(tmp_path / "fulcrum.db")
    yield Store(
        SqliteKeys(database),
        SqliteBudgets(database),
        SqliteSwitches(database),
        SqlitePolicies(database),
        SqliteConfig(database),
    )
    database.close()


def switch(
    switch_id: str = "ks_1", tenant: str = "acme", target: str = "bot", kind: SwitchKind = "agent", at: int = 10
) -> KillSwitch:
    return KillSwitch(switch_id, tenant, kind, target, "runs wild, ü ☠", "ann", at)


def source(*texts: str, **data: object) -> PolicySource:
    return PolicySource(tuple(PolicyModule(f"{n}.rego", text) for n, text in enumerate(texts)), data, "set")


def budget(budget_id: str = "b1", tenant: str = "acme", name: str = "daily") -> Budget:
    return Budget(budget_id, tenant, name, Scope("agent"), {"calls": 3})


def test_a_switch_comes_back_as_it_was_thrown(store: Store) -> None:
    store.switches.add(switch())
    assert list(store.switches.list("acme")) == [switch()]
    assert list(store.switches.list("other")) == []


def test_switches_are_listed_by_tenant_newest_first(store: Store) -> None:
    for made in (
        switch("a", target="x", at=1),
        switch("b", target="y", at=3),
        switch("c", target="z", at=2),
        switch("d", tenant="other"),
        switch("e", tenant=EVERYBODY),
    ):
        store.switches.add(made)
    assert [found.id for found in store.switches.list("acme")] == ["b", "c", "a"]
    assert [found.id for found in store.switches.list(EVERYBODY)] == ["e"]


def test_what_is_stopped_cannot_be_stopped_again(store: Store) -> None:
    store.switches.add(switch())
    before = store.config.revision()
    with pytest.raises(Conflict):
        store.switches.add(switch("ks_2"))
    assert store.config.revision() == before
    store.switches.add(switch("ks_3", tenant="other"))
    store.switches.add(switch("ks_4", kind="key"))
    with pytest.raises(Conflict):
        store.switches.add(switch("ks_1", target="somebody else"))


def test_another_tenants_switch_cannot_be_taken_away(store: Store) -> None:
    store.switches.add(switch())
    for tenant, switch_id in (("other", "ks_1"), (EVERYBODY, "ks_1"), ("acme", "ks_2")):
        with pytest.raises(NotFound):
            store.switches.delete(tenant, switch_id)
    assert store.switches.delete("acme", "ks_1") == switch()
    with pytest.raises(NotFound):
        store.switches.delete("acme", "ks_1")
    assert store.config.read().switches == ()


def test_policies_are_numbered_and_come_back_whole(store: Store) -> None:
    assert store.policies.get() is None
    assert list(store.policies.list()) == []
    first = source("package a\n# \x00 \u2028 ü \U0001f600", limits={"a": [1, 2.5, None, 2**61], "ü": "\x00"})
    second = source("package b")
    made = store.policies.put(first, "ann", 10)
    assert made == StoredPolicies(1, source_digest(first), "ann", 10, first)
    assert store.policies.put(second, "bob", 20).number == 2
    assert store.policies.get(1) == made
    newest = store.policies.get()
    assert newest is not None
    assert newest.source == second
    assert store.policies.get(3) is None
    assert store.policies.get(0) is None
    assert store.policies.get(-1) is None


def test_the_same_policies_again_make_no_revision(store: Store) -> None:
    made = store.policies.put(source("package a"), "ann", 10)
    before = store.config.revision()
    assert store.policies.put(source("package a"), "bob", 20) == made
    assert store.config.revision() == before
    store.policies.put(source("package b"), "ann", 30)
    again = store.policies.put(source("package a"), "ann", 40)
    assert (again.number, again.digest) == (3, made.digest), "going back is a revision of its own"


def test_lists_of_policies_are_newest_first_bounded_and_without_sources(store: Store) -> None:
    for number in range(4):
        store.policies.put(source(f"package p{number}"), "ann", number)
    assert [(found.number, found.source) for found in store.policies.list()] == [(n, None) for n in (4, 3, 2, 1)]
    assert [found.number for found in store.policies.list(2)] == [4, 3]


def test_numbers_have_no_gap_when_many_publish_at_once(store: Store) -> None:
    gate = threading.Barrier(4)

    def publish(word: str) -> None:
        gate.wait(10)
        for number in range(5):
            store.policies.put(source(f"package {word}{number}"), word, number)

    threads = [threading.Thread(target=publish, args=(word,)) for word in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [found.number for found in store.policies.list()] == list(range(20, 0, -1))


def test_every_change_moves_the_revision_and_reading_does_not(store: Store) -> None:
    seen = [store.config.revision()]
    for change in (
        lambda: store.keys.add(ApiKey("k", "acme", "a", "n", (), (), 1)),
        lambda: store.budgets.add(budget()),
        lambda: store.switches.add(switch()),
        lambda: store.policies.put(source("package a"), "ann", 1),
        lambda: store.switches.delete("acme", "ks_1"),
        lambda: store.budgets.delete("acme", "b1"),
    ):
        change()
        store.switches.list("acme")
        store.policies.list()
        assert store.config.read().revision == store.config.revision()
        seen.append(store.config.revision())
    assert seen == sorted(set(seen))


def test_the_whole_configuration_is_that_of_all_tenants(store: Store) -> None:
    empty = store.config.read()
    assert (empty.budgets, empty.switches, empty.policies) == ((), (), None)
    store.budgets.add(budget())
    store.budgets.add(budget("b2", tenant="other"))
    store.switches.add(switch())
    store.switches.add(switch("ks_2", tenant=EVERYBODY))
    made = store.policies.put(source("package a"), "ann", 1)
    found = store.config.read()
    assert set(found.switches) == {switch(), switch("ks_2", tenant=EVERYBODY)}
    assert [each.id for each in found.budgets] == ["b1", "b2"]
    assert found.policies == made
    assert store.config.read() == found


def test_what_is_read_is_one_moments_state(store: Store) -> None:
    """A budget and the switch beside it are changed in turn: no reading may show a later one without the earlier."""
    over = threading.Event()

    def change() -> None:
        for number in range(60):
            store.budgets.add(budget(f"b{number}", name=f"n{number:03}"))
            store.switches.add(switch(f"s{number}", target=f"t{number}"))
        over.set()

    thread = threading.Thread(target=change)
    thread.start()
    while not over.is_set():
        found = store.config.read()
        assert len(found.budgets) - len(found.switches) in (0, 1)
        assert found.revision >= 1 + len(found.budgets) + len(found.switches)
    thread.join(30)
    assert len(store.config.read().switches) == 60
