"""Budgets: made, listed with what was used of them, deleted."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.record import BUDGET_CREATED, BUDGET_DELETED, Record, unannounced, unrecorded
from fulcrum_mcp.core.budget import Budget, BudgetUsage
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.written import read_budget, show_rate, show_scope
from fulcrum_mcp.errors import Conflict
from fulcrum_mcp.ports import BudgetRepository

__all__ = ["BudgetView", "Budgets", "budget_document"]

Usage = Callable[[Sequence[Budget], int], Sequence[BudgetUsage]]
_SECOND = 1_000_000_000
_OVERTAKEN = "another one took its name at the same moment"


class BudgetView(NamedTuple):
    """A budget, where it comes from, and every bucket of its current window."""

    budget: Budget
    configured: bool
    """It stands in a configuration file and can be changed only there."""
    usage: Sequence[BudgetUsage]
    at: int


class Budgets:
    """The use cases. The tenant is always the caller's own.

    What changes is recorded first, and `changed` is called once it is stored. `configured` gives the budgets of
    configuration files; `usage` is `BudgetLedger.usage`, called on a thread where that is allowed.
    """

    def __init__(
        self,
        repository: BudgetRepository,
        usage: Usage,
        *,
        configured: Callable[[], Sequence[Budget]] = tuple,
        record: Record = unrecorded,
        changed: Callable[[], None] = unannounced,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._repository = repository
        self._usage = usage
        self._configured = configured
        self._record = record
        self._changed = changed
        self._now = now

    def create(self, principal: Principal, fields: Mapping[str, Any]) -> BudgetView:
        """Make a budget from its written fields (`core.written`). Raises `Unprivileged`, `Invalid`, `Conflict`, ..."""
        require(principal, "cost:write")
        budget = read_budget(fields, f"bud_{secrets.token_hex(8)}", principal.tenant, lambda _key: "budget")
        if any(other.name == budget.name for other in self._of_files(principal)):
            raise Conflict(f'budget "{budget.name}" exists already in the configuration file; choose another name.')
        if any(other.name == budget.name for other in self._repository.list(principal.tenant)):
            raise Conflict(f'budget "{budget.name}" exists already; choose another name, or delete that one first.')
        self._record(principal, BUDGET_CREATED, budget.id, {"budget": _facts(budget)})
        try:
            self._repository.add(budget)
        except Conflict:
            self._record(principal, BUDGET_DELETED, budget.id, {"budget": _facts(budget), "reason": _OVERTAKEN})
            raise
        self._changed()
        return BudgetView(budget, configured=False, usage=(), at=self._now())

    def list(self, principal: Principal) -> Sequence[BudgetView]:
        """Those of files first, each by name. Raises `Unprivileged`, `Unavailable`."""
        require(principal, "cost:read")
        now = self._now()
        ours = [(budget, True) for budget in self._of_files(principal)]
        ours += [(budget, False) for budget in self._repository.list(principal.tenant)]
        used: dict[str, list[BudgetUsage]] = {}
        for usage in self._usage([budget for budget, _ in ours], now):
            used.setdefault(usage.budget.id, []).append(usage)
        return [BudgetView(budget, configured, used.get(budget.id, ()), now) for budget, configured in ours]

    def delete(self, principal: Principal, budget_id: str) -> None:
        """Raises `Unprivileged`, `NotFound`, `Conflict` for one that stands in a file."""
        require(principal, "cost:write")
        if any(budget.id == budget_id for budget in self._of_files(principal)):
            raise Conflict(f'budget "{budget_id}" stands in the configuration file; remove it there.')
        for budget in self._repository.list(principal.tenant):
            if budget.id == budget_id:
                self._record(principal, BUDGET_DELETED, budget_id, {"budget": _facts(budget)})
        self._repository.delete(principal.tenant, budget_id)
        self._changed()

    def _of_files(self, principal: Principal) -> Sequence[Budget]:
        mine = [budget for budget in self._configured() if budget.tenant == principal.tenant]
        return sorted(mine, key=lambda budget: budget.name)


def budget_document(view: BudgetView) -> dict[str, Any]:
    """A budget for people and programs; money in `usd_micros`, times in RFC 3339."""
    return {
        **_facts(view.budget),
        "source": "file" if view.configured else "api",
        "usage": [_usage_document(usage, view.at) for usage in view.usage],
    }


def _facts(budget: Budget) -> dict[str, Any]:
    return {
        "id": budget.id,
        "name": budget.name,
        "scope": show_scope(budget.scope),
        "limits": dict(budget.limits),
        "rate": None if budget.rate is None else show_rate(budget.rate),
        "period": budget.period,
        "timezone": budget.timezone,
        "action": budget.action,
        "thresholds": list(budget.thresholds),
    }


def _usage_document(usage: BudgetUsage, at: int) -> dict[str, Any]:
    limits = usage.budget.limits
    committed = {name: usage.committed.get(name, 0) for name in limits}
    reserved = {name: usage.reserved.get(name, 0) for name in limits}
    elapsed = max((at - usage.window_start) // _SECOND, 1) if usage.window_start else 0
    return {
        "bucket": usage.bucket,
        "committed": committed,
        "reserved": reserved,
        "left": {name: max(limit - committed[name] - reserved[name], 0) for name, limit in limits.items()},
        "per_hour": {name: amount * 3600 // elapsed if elapsed else None for name, amount in committed.items()},
        "window_start": _iso(usage.window_start),
        "resets_at": _iso(usage.resets_at),
    }


def _iso(at: int) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at // _SECOND)) if at else None
