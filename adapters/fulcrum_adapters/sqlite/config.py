"""The configuration as a whole, from `fulcrum.db`."""

from sqlite3 import Connection

from fulcrum_adapters.sqlite.budgets import read_budgets
from fulcrum_adapters.sqlite.control import ControlDatabase, read_revision
from fulcrum_adapters.sqlite.policies import read_policy_revision
from fulcrum_adapters.sqlite.switches import read_switches
from fulcrum_mcp.ports import StoredConfig

__all__ = ["SqliteConfig"]


class SqliteConfig:
    """`ConfigRepository` on a `ControlDatabase`."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def revision(self) -> int:
        """Grows with every change. Raises `Unavailable`."""
        return self._database.revision()

    def read(self) -> StoredConfig:
        """One moment's state. Raises `Unavailable`."""
        return self._database.look(_config)


def _config(connection: Connection) -> StoredConfig:
    return StoredConfig(
        revision=read_revision(connection),
        budgets=read_budgets(connection, None),
        switches=read_switches(connection),
        policies=read_policy_revision(connection),
    )
