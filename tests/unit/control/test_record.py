from collections.abc import Mapping
from typing import Any

import pytest

from fulcrum_adapters.memory.budgets import MemoryBudgets
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_mcp.control.budgets import Budgets
from fulcrum_mcp.control.keys import Keys
from fulcrum_mcp.control.record import BUDGET_CREATED, BUDGET_DELETED, KEY_CREATED, KEY_REVOKED
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Conflict, Invalid, NotFound, Unavailable

ADMIN = Principal("t", "root", "k", scopes=frozenset({"admin"}))


class Trail:
    """Keeps what is recorded, or refuses all of it."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.text = ""
        self.broken = False

    def __call__(self, principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        assert principal is ADMIN
        if self.broken:
            raise Unavailable("no disk")
        self.said.append((kind, subject))
        self.text += str(data)


def test_a_key_is_recorded_when_it_is_made_and_once_when_it_is_revoked_without_its_secret() -> None:
    trail, store = Trail(), MemoryKeys()
    keys = Keys(store, record=trail)
    made = keys.create(ADMIN, name="ci")
    keys.revoke(ADMIN, made.key.id)
    keys.revoke(ADMIN, made.key.id)
    assert trail.said == [(KEY_CREATED, made.key.id), (KEY_REVOKED, made.key.id)]
    assert made.text not in trail.text
    assert made.key.digest not in trail.text


def test_a_budget_is_recorded_when_it_is_made_and_when_it_is_deleted() -> None:
    trail = Trail()
    budgets = Budgets(MemoryBudgets(), lambda _budgets, _at: (), record=trail)
    made = budgets.create(ADMIN, {"scope": "agent", "calls": 5}).budget
    budgets.delete(ADMIN, made.id)
    assert trail.said == [(BUDGET_CREATED, made.id), (BUDGET_DELETED, made.id)]
    assert "'limits': {'calls': 5}" in trail.text


def test_nothing_changes_that_cannot_be_recorded() -> None:
    trail, store, kept = Trail(), MemoryKeys(), MemoryBudgets()
    keys, budgets = Keys(store, record=trail), Budgets(kept, lambda _budgets, _at: (), record=trail)
    key, budget = keys.create(ADMIN, name="ci").key, budgets.create(ADMIN, {"scope": "agent", "calls": 5}).budget
    trail.broken = True
    for act in (
        lambda: keys.create(ADMIN, name="other"),
        lambda: keys.revoke(ADMIN, key.id),
        lambda: budgets.create(ADMIN, {"scope": "key", "calls": 5}),
        lambda: budgets.delete(ADMIN, budget.id),
    ):
        with pytest.raises(Unavailable):
            act()
    assert [(one.id, one.revoked_at) for one in store.list("t")] == [(key.id, None)]
    assert [one.id for one in kept.list("t")] == [budget.id]


def test_what_is_refused_is_not_recorded() -> None:
    trail = Trail()
    keys, budgets = Keys(MemoryKeys(), record=trail), Budgets(MemoryBudgets(), lambda _b, _at: (), record=trail)
    budgets.create(ADMIN, {"scope": "agent", "calls": 5, "name": "x"})
    with pytest.raises(Conflict):
        budgets.create(ADMIN, {"scope": "key", "calls": 5, "name": "x"})
    with pytest.raises(NotFound):
        budgets.delete(ADMIN, "bud_none")
    with pytest.raises(NotFound):
        keys.revoke(ADMIN, "none")
    with pytest.raises(Invalid):
        keys.create(ADMIN, name="")
    assert [kind for kind, _ in trail.said] == [BUDGET_CREATED]


def test_a_budget_that_lost_its_name_to_another_at_the_same_moment_is_recorded_as_gone() -> None:
    class Overtaken(MemoryBudgets):
        def add(self, budget: Budget) -> None:
            raise Conflict(f"{budget.name} exists already")

    trail = Trail()
    budgets = Budgets(Overtaken(), lambda _budgets, _at: (), record=trail)
    with pytest.raises(Conflict):
        budgets.create(ADMIN, {"scope": "agent", "calls": 5})
    assert [kind for kind, _ in trail.said] == [BUDGET_CREATED, BUDGET_DELETED]
    assert len({subject for _, subject in trail.said}) == 1
    assert "'reason': 'another one took its name at the same moment'" in trail.text
