"""The processor's store in SQLite. Positions in the spools move in the same transaction as the records read there."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from fulcrum_adapters.sqlite.audit_schema import connect
from fulcrum_mcp.core.checkpoint import ChainState, line_hash
from fulcrum_mcp.core.merkle import Frontier
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import SpoolPosition, StoreBatch, StoreState

__all__ = ["SqliteAuditStore"]

_ROWS = 128
"""Rows in one statement: SQLite lets go of the interpreter's lock once a statement, not once a row."""


_LAST_CHECKPOINTS = """
SELECT tenant, number, line FROM audit_checkpoints c
WHERE number = (SELECT max(number) FROM audit_checkpoints WHERE tenant = c.tenant)
"""


@lru_cache(maxsize=32)
def _insert(table: str, columns: int, rows: int) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES " + ",".join(["(NULL" + ",?" * columns + ")"] * rows)  # noqa: S608


class SqliteAuditStore:
    """An `AuditStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect(path, write=True)
        self._identity = self._identify()

    def _identify(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        if self._identify() != self._identity:  # what is stored in a removed file is lost without an error
            raise Unavailable(f"the audit store {self._path} was deleted or replaced while in use")
        try:
            yield self._db
        except sqlite3.Error as exc:
            raise Unavailable(f"the audit store {self._path} does not answer: {exc}") from exc

    def load(self) -> StoreState:
        """See `AuditStore`."""
        state = StoreState({}, {}, {}, {})
        with self._translated() as db:
            for name, tenant, size, head, frontier, signed, broken in db.execute("SELECT * FROM audit_chains"):
                try:
                    tree = Frontier(size, frontier)
                except ValueError as exc:
                    raise Unavailable(f"the audit store {self._path} is damaged: chain {name}: {exc}") from exc
                state.chains[name] = ChainState(name, tenant, head, tree, signed)
                if broken:
                    state.broken[name] = broken
            for writer, segment, place in db.execute("SELECT * FROM spool_positions"):
                state.positions[writer] = SpoolPosition(segment, place)
            for tenant, number, line in db.execute(_LAST_CHECKPOINTS):
                state.checkpoints[tenant] = (number, line_hash(line))
        return state

    def add(self, batch: StoreBatch) -> None:
        """See `AuditStore`."""
        with self._translated() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                self._add(db, batch)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _add(self, db: sqlite3.Connection, batch: StoreBatch) -> None:
        _add_rows(db, "audit_events", batch.rows)
        _add_rows(db, "call_inputs", batch.inputs)
        db.executemany(
            "INSERT OR REPLACE INTO audit_chains VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (s.chain, s.tenant, s.size, s.head, s.tree.pack(), s.signed, batch.broken.get(s.chain))
                for s in batch.chains.values()
            ],
        )
        db.executemany(
            "INSERT OR REPLACE INTO spool_positions VALUES (?, ?, ?)",
            [(writer, *position) for writer, position in batch.positions.items()],
        )
        db.executemany("INSERT INTO audit_checkpoints VALUES (?, ?, ?)", batch.checkpoints)
        db.executemany("INSERT INTO audit_faults (writer, what, line) VALUES (?, ?, ?)", batch.faults)

    def flush(self) -> None:
        """See `AuditStore`."""
        with self._translated() as db:
            busy, _, _ = db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if busy:
            raise Unavailable(f"the audit store {self._path} is being read; its log is copied later")

    def erase_inputs(self, before: int) -> int:
        """See `AuditStore`."""
        with self._translated() as db:
            return db.execute("DELETE FROM call_inputs WHERE time < ?", (before,)).rowcount

    def close(self) -> None:
        """See `AuditStore`."""
        self._db.close()


def _add_rows(db: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        db.execute(_insert(table, len(some[0]), len(some)), list(chain.from_iterable(some)))
