"""Which budgets a call falls under. Asked for every call, so an index is built once per snapshot."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import get_args

from fulcrum_mcp.core.budget import Budget, Match, Scope, ScopeKind
from fulcrum_mcp.errors import Invalid

__all__ = ["OPERATOR", "BudgetIndex", "matching", "parse_scope"]

OPERATOR = ""
"""The owner of budgets that bind all tenants together; a tenant can never be named so."""

_KINDS: tuple[ScopeKind, ...] = get_args(ScopeKind)
_REMEMBERED = 4_096


class _Cell:
    """The budgets of one owner and one kind of scope."""

    __slots__ = ("_each", "_known", "_named")

    def __init__(self) -> None:
        self._each: list[Budget] = []
        self._named: dict[str, list[Budget]] = {}
        self._known: dict[str, tuple[Match, ...]] = {}

    def add(self, budget: Budget) -> None:
        if budget.scope.id is None:
            self._each.append(budget)
        else:
            self._named.setdefault(budget.scope.id, []).append(budget)

    def find(self, value: str, prefix: str) -> tuple[Match, ...]:
        bucket = prefix + value
        found = self._known.get(bucket)
        if found is None:
            found = tuple(Match(budget, bucket) for budget in (*self._each, *self._named.get(value, ())))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[bucket] = found
        return found


class BudgetIndex:
    """Budgets by owner, kind and id. Immutable to its users; `matching` is one look-up per kind in use."""

    __slots__ = ("_owners", "budgets")

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.budgets = tuple(budgets)
        self._owners: dict[str, list[tuple[ScopeKind, _Cell]]] = {}
        cells: dict[tuple[str, ScopeKind], _Cell] = {}
        for budget in self.budgets:
            place = (budget.tenant, budget.scope.kind)
            if place not in cells:
                cells[place] = _Cell()
                self._owners.setdefault(budget.tenant, []).append((budget.scope.kind, cells[place]))
            cells[place].add(budget)

    def matching(self, subject: Mapping[str, str | None]) -> tuple[Match, ...]:
        """Every budget that applies to a call.

        `subject` maps tenant, agent, key, workflow, envelope, server, tool (`<server>__<tool>`) and model to their
        ids; a kind that the call has no value for matches nothing. The operator's budgets name buckets
        `<tenant>/<id>`, because the names of two tenants may be equal.
        """
        tenant = subject["tenant"]
        if not tenant:
            return ()
        found: tuple[Match, ...] = ()
        for kind, cell in self._owners.get(tenant, ()):
            value = "global" if kind == "global" else subject.get(kind)
            if value:
                found += cell.find(value, "")
        shared = self._owners.get(OPERATOR)
        if shared is None:
            return found
        prefix = tenant.replace("%", "%25").replace("/", "%2F") + "/"
        for kind, cell in shared:
            value = "global" if kind == "global" else subject.get(kind)
            if value:
                found += cell.find(value, "" if kind in {"global", "tenant"} else prefix)
        return found


def matching(budgets: Iterable[Budget], subject: Mapping[str, str | None]) -> tuple[Match, ...]:
    """`BudgetIndex.matching`, for one question only."""
    return BudgetIndex(budgets).matching(subject)


def parse_scope(value: object, where: str) -> Scope:
    """`KIND[:ID]`, such as agent or tool:files__write_file. Raises `Invalid`."""
    if not isinstance(value, str):
        raise Invalid(f"{where}: scope must be text such as agent or tool:files__write_file, not {value!r}.")
    name, colon, scope_id = value.strip().partition(":")
    kind: ScopeKind | None = next((kind for kind in _KINDS if kind == name), None)
    if kind is None:
        near = get_close_matches(name, _KINDS, 1)
        guess = f' Did you mean "{near[0]}"?' if near else ""
        raise Invalid(f'{where}: scope "{value}" is not KIND[:ID] with KIND one of {", ".join(_KINDS)}.{guess}')
    if colon and not scope_id:
        raise Invalid(f'{where}: scope "{value}" ends in a colon; name the {kind}, or leave the colon out for each.')
    if kind == "global" and scope_id:
        raise Invalid(f'{where}: scope "{value}": global has no id; write global, or tenant:{scope_id}.')
    return Scope(kind, scope_id or None)
