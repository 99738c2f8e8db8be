"""Budgets made over the CLI or the API, in `fulcrum.db`."""

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_mcp.core.budget import Budget, Rate, Scope
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["SqliteBudgets", "read_budgets"]

_COLUMNS = (
    "id, tenant, name, scope_kind, scope_id, limits, period, action, thresholds, timezone,"
    " rate_limit, rate_period, rate_burst"
)


class SqliteBudgets:
    """`BudgetRepository` on a `ControlDatabase`."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def add(self, budget: Budget) -> None:
        """Raises `Conflict` when the tenant has a budget of that name."""
        rate = budget.rate
        row = (
            budget.id,
            budget.tenant,
            budget.name,
            budget.scope.kind,
            budget.scope.id,
            json.dumps(dict(budget.limits)),
            budget.period,
            budget.action,
            json.dumps(budget.thresholds),
            budget.timezone,
            *((rate.limit, rate.period, rate.burst) if rate is not None else (None, None, None)),
        )

        def act(connection: Connection) -> None:
            marks = ", ".join("?" * len(row))
            done = connection.execute(
                f"INSERT INTO budgets ({_COLUMNS}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608 (fixed text)
                row,
            )
            if not done.rowcount:
                raise Conflict(f'budget "{budget.name}" exists already; delete it first, or choose another name.')

        self._database.change(act)

    def list(self, tenant: str | None) -> Sequence[Budget]:
        """By name; None: of all tenants."""
        return self._database.read(lambda connection: read_budgets(connection, tenant))

    def delete(self, tenant: str, budget_id: str) -> None:
        """Raises `NotFound`."""

        def act(connection: Connection) -> None:
            done = connection.execute("DELETE FROM budgets WHERE tenant = ? AND id = ?", (tenant, budget_id))
            if not done.rowcount:
                raise NotFound(f'no budget "{budget_id}"; list them to see their ids.')

        self._database.change(act)

    def revision(self) -> int:
        """Grows with every change by any process that shares the file."""
        return self._database.revision()


def read_budgets(connection: Connection, tenant: str | None) -> tuple[Budget, ...]:
    """By name; None: of all tenants."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM budgets WHERE ?1 IS NULL OR tenant = ?1 ORDER BY name, tenant",  # noqa: S608 (fixed text)
        (tenant,),
    )
    return tuple([_budget(row) for row in rows])


def _budget(row: Sequence[Any]) -> Budget:
    return Budget(
        id=row[0],
        tenant=row[1],
        name=row[2],
        scope=Scope(row[3], row[4]),
        limits=json.loads(row[5]),
        period=row[6],
        action=row[7],
        thresholds=tuple(json.loads(row[8])),
        timezone=row[9],
        rate=Rate(row[10], row[11], row[12]) if row[10] is not None else None,
    )
