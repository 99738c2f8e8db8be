"""`fulcrum.db`, the control plane's file: any thread may ask, one thread of its own holds the connection."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.control_schema import SCHEMA, VERSION
from fulcrum_mcp.errors import Unavailable

__all__ = ["ControlDatabase", "read_revision"]

T = TypeVar("T")


class ControlDatabase:
    """Short transactions; each change moves the revision in the same transaction."""

    def __init__(self, path: Path, *, busy_timeout: float = 5.0) -> None:
        self._database = WalDatabase(
            path,
            f"{SCHEMA}\nINSERT OR IGNORE INTO revision VALUES (1, 1)",
            VERSION,
            busy_timeout=busy_timeout,
        )
        self._thread = ThreadPoolExecutor(1, "control-db")
        self._closed = False

    def read(self, ask: Callable[[Connection], T]) -> T:
        """Run `ask` on the connection. Raises `Unavailable`."""

        def work() -> T:
            with self._database.read() as connection:
                return ask(connection)

        return self._run(work)

    def look(self, ask: Callable[[Connection], T]) -> T:
        """As `read`, all of it from one moment."""

        def work(connection: Connection) -> T:
            connection.execute("BEGIN")
            try:
                return ask(connection)
            finally:
                connection.execute("ROLLBACK")

        return self.read(work)

    def change(self, act: Callable[[Connection], T]) -> T:
        """Run `act` in one transaction that also moves the revision. Raises `Unavailable`."""

        def work() -> T:
            with self._database.write() as connection:
                done = act(connection)
                connection.execute("UPDATE revision SET value = value + 1")
                return done

        return self._run(work)

    def revision(self) -> int:
        """Grows with each change by any process."""
        return self.read(read_revision)

    def _run(self, work: Callable[[], T]) -> T:
        try:
            waiting = self._thread.submit(work)
        except RuntimeError as exc:
            raise Unavailable(f"{self._database.path}: closed; start again.") from exc
        return waiting.result()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._database.close).result()
            self._thread.shutdown()


def read_revision(connection: Connection) -> int:
    """As it stands in this transaction."""
    found: int = connection.execute("SELECT value FROM revision").fetchone()[0]
    return found
