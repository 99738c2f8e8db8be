"""Budgets in memory."""

from collections.abc import Sequence

from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["MemoryBudgets"]


class MemoryBudgets:
    """`BudgetRepository` that forgets when the process ends."""

    def __init__(self, revision: MemoryRevision | None = None) -> None:
        self._revision = revision or MemoryRevision()
        self._budgets: dict[str, Budget] = {}

    def add(self, budget: Budget) -> None:
        """Raises `Conflict` when the tenant has a budget of that name."""
        taken = any(other.tenant == budget.tenant and other.name == budget.name for other in self._budgets.values())
        if taken or budget.id in self._budgets:
            raise Conflict(f'budget "{budget.name}" exists already; delete it first, or choose another name.')
        self._budgets[budget.id] = budget
        self._revision.move()

    def list(self, tenant: str | None) -> Sequence[Budget]:
        """By name; None: of all tenants."""
        mine = [budget for budget in self._budgets.values() if tenant is None or budget.tenant == tenant]
        return sorted(mine, key=lambda budget: (budget.name, budget.tenant))

    def delete(self, tenant: str, budget_id: str) -> None:
        """Raises `NotFound`."""
        budget = self._budgets.get(budget_id)
        if budget is None or budget.tenant != tenant:
            raise NotFound(f'no budget "{budget_id}"; list them to see their ids.')
        del self._budgets[budget_id]
        self._revision.move()

    def revision(self) -> int:
        """Grows with every change of keys or budgets."""
        return self._revision.value
