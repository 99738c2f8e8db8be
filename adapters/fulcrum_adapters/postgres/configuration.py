"""The configuration as a whole, from Postgres."""

from fulcrum_adapters.postgres.budgets import read_budgets
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.policies import read_policy_revision
from fulcrum_adapters.postgres.revision import read_revision
from fulcrum_adapters.postgres.switches import read_switches
from fulcrum_mcp.ports import StoredConfig

__all__ = ["PostgresConfiguration"]


class PostgresConfiguration:
    """`ConfigRepository` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def revision(self) -> int:
        """Grows with every change. Raises `Unavailable`."""
        with self._database.session("fulcrum_gateway") as session:
            return read_revision(session)

    def read(self) -> StoredConfig:
        """One moment's state. Raises `Unavailable`."""
        with self._database.session("fulcrum_gateway", snapshot=True) as session:
            return StoredConfig(
                revision=read_revision(session),
                budgets=read_budgets(session, None),
                switches=read_switches(session),
                policies=read_policy_revision(session),
            )
