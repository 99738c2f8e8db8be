"""The control plane's stores, whichever adapters they are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fulcrum_adapters.sqlite.budgets import SqliteBudgets
from fulcrum_adapters.sqlite.config import SqliteConfig
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_adapters.sqlite.policies import SqlitePolicies
from fulcrum_adapters.sqlite.switches import SqliteSwitches
from fulcrum_mcp.ports import BudgetRepository, ConfigRepository, KeyRepository, PolicyRepository, SwitchRepository

__all__ = ["Repositories", "sqlite_repositories"]


@dataclass(frozen=True, slots=True)
class Repositories:
    """Opened; `close` gives the store back."""

    keys: KeyRepository
    budgets: BudgetRepository
    switches: SwitchRepository
    policies: PolicyRepository
    config: ConfigRepository
    close: Callable[[], None]


def sqlite_repositories(folder: Path) -> Repositories:
    """Those in `fulcrum.db` of a data folder. Raises `Unavailable`."""
    database = ControlDatabase(folder / "fulcrum.db")
    return Repositories(
        keys=SqliteKeys(database),
        budgets=SqliteBudgets(database),
        switches=SqliteSwitches(database),
        policies=SqlitePolicies(database),
        config=SqliteConfig(database),
        close=database.close,
    )
