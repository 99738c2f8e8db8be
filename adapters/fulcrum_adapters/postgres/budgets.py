"""Budgets made over the CLI or the API, in Postgres."""

import json
from collections.abc import Sequence
from typing import Any

from fulcrum_adapters.postgres.database import Database, Role, Session
from fulcrum_adapters.postgres.revision import read_revision
from fulcrum_mcp.core.budget import Budget, Rate, Scope
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["PostgresBudgets", "read_budgets"]

_COLUMNS = (
    "id, tenant, name, scope_kind, scope_id, limits, period, action, thresholds, timezone,"
    " rate_limit, rate_period, rate_burst"
)


class PostgresBudgets:
    """`BudgetRepository` on a `Database`."""

    def __init__(self, database: Database) -> None:
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
        with self._database.session("fulcrum_app", budget.tenant) as session:
            done = session.execute(
                f"INSERT INTO fulcrum.budgets ({_COLUMNS})"  # noqa: S608 (fixed text)
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                row,
            )
            if not done.rowcount:
                raise Conflict(f'budget "{budget.name}" exists already; delete it first, or choose another name.')

    def list(self, tenant: str | None) -> Sequence[Budget]:
        """By name; None: of all tenants."""
        role: Role = "fulcrum_gateway" if tenant is None else "fulcrum_app"
        with self._database.session(role, tenant) as session:
            return read_budgets(session, tenant)

    def delete(self, tenant: str, budget_id: str) -> None:
        """Raises `NotFound`."""
        with self._database.session("fulcrum_app", tenant) as session:
            done = session.execute("DELETE FROM fulcrum.budgets WHERE tenant = %s AND id = %s", (tenant, budget_id))
            if not done.rowcount:
                raise NotFound(f'no budget "{budget_id}"; list them to see their ids.')

    def revision(self) -> int:
        """Grows with every change of keys, budgets, policies or switches, whoever makes it."""
        with self._database.session("fulcrum_gateway") as session:
            return read_revision(session)


def read_budgets(session: Session, tenant: str | None) -> tuple[Budget, ...]:
    """By name; None: of all tenants that the session sees."""
    rows = session.execute(
        f"SELECT {_COLUMNS} FROM fulcrum.budgets WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s"  # noqa: S608 (fixed text)
        ' ORDER BY name COLLATE "C", tenant COLLATE "C"',
        {"tenant": tenant},
    ).fetchall()
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
