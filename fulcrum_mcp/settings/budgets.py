"""`[[budget]]` and `[[rate]]` as budgets, each complaint with its line."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.written import read_budget
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.file import guess
from fulcrum_mcp.settings.place import Places

__all__ = ["from_tables"]

_RATE_KEYS = ("scope", "limit", "name", "action")
TENANT = "default"


def from_tables(
    budgets: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Any]], places: Places
) -> tuple[Budget, ...]:
    """All budgets of a file. Their ids follow from their names, so usage outlives a restart. Raises `Invalid`."""
    made: dict[str, Budget] = {}
    for kind, tables in (("budget", budgets), ("rate", rates)):
        for index, table in enumerate(tables):
            where = _where(kind, index, table, places)
            budget = _read(kind, table, where)
            if budget.name in made:
                raise Invalid(
                    f'{where("name")}: the name "{budget.name}" is taken by another budget; give one of them a '
                    "name of its own."
                )
            made[budget.name] = budget
    return tuple(made.values())


def _read(kind: str, table: Mapping[str, Any], where: Callable[[str], str]) -> Budget:
    fields = dict(table)
    if kind == "rate":
        for key in fields:
            if key not in _RATE_KEYS:
                raise Invalid(f'{where(key)}: unknown key "{key}"{guess(key, _RATE_KEYS)}')
        if "limit" not in fields:
            raise Invalid(f"{where('limit')}: limit is missing; write N/PERIOD[:BURST], for example 10/minute:3.")
        fields["rate"] = fields.pop("limit")
    budget = read_budget(fields, "", TENANT, where)
    identity = hashlib.sha256(f"{TENANT}\n{budget.name}".encode()).hexdigest()[:16]
    return read_budget(fields, f"bud_cfg_{identity}", TENANT, where)


def _where(kind: str, index: int, table: Mapping[str, Any], places: Places) -> Callable[[str], str]:
    name = table.get("name")
    subject = f'{kind} "{name}"' if isinstance(name, str) else f"{kind} {index + 1}"

    def where(key: str) -> str:
        written = "limit" if kind == "rate" and key == "rate" else key
        return f"{places.at((kind, index, written))}: {subject}"

    return where
