"""`ledger.db`: ledger and history over one connection, so that the journal's tick is one transaction."""

from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection

from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.history import SqliteHistory
from fulcrum_adapters.sqlite.ledger import SqliteLedger
from fulcrum_adapters.sqlite.schema import SCHEMA, VERSION

__all__ = ["SqliteStore"]


class SqliteStore:
    """Opened at first use, on the thread that then owns it. `busy_timeout`, `keep` and `key_window` are seconds.

    `create`: False for whoever only looks after a file that others made.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout: float = 1.0,
        keep: int = 86_400,
        key_window: int = 3_600,
        create: bool = True,
    ) -> None:
        self._database = WalDatabase(path, SCHEMA, VERSION, busy_timeout=busy_timeout, create=create)
        self.ledger = SqliteLedger(self._database, keep=keep)
        self.history = SqliteHistory(self._database, key_window=key_window)

    def transaction(self) -> AbstractContextManager[Connection]:
        """Everything that ledger and history do inside is one transaction. Raises `Unavailable`: none of it is done."""
        return self._database.write()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._database.close()
