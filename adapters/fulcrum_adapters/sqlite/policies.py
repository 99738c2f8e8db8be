"""Revisions of policies in `fulcrum.db`."""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_mcp.core.policy import PolicySource, parse_source_text, source_digest, source_text
from fulcrum_mcp.ports import StoredPolicies

__all__ = ["SqlitePolicies", "read_policy_revision"]

_COLUMNS = "number, digest, author, created_at, name, modules, data"


class SqlitePolicies:
    """`PolicyRepository` on a `ControlDatabase`."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def put(self, source: PolicySource, author: str, at: int) -> StoredPolicies:
        """Make it the newest revision; the same digest as the newest makes none."""
        digest = source_digest(source)
        modules, data = source_text(source)
        newest = self.get()
        if newest is not None and newest.digest == digest:
            return newest

        def act(connection: Connection) -> StoredPolicies:
            found = read_policy_revision(connection)
            if found is not None and found.digest == digest:
                return found
            number = 1 if found is None else found.number + 1
            connection.execute(
                f"INSERT INTO policy_revisions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (fixed text)
                (number, digest, author, at, source.name, modules, data),
            )
            return StoredPolicies(number, digest, author, at, source)

        return self._database.change(act)

    def get(self, number: int | None = None) -> StoredPolicies | None:
        """A revision with its source, the newest without a number."""
        return self._database.read(lambda connection: read_policy_revision(connection, number))

    def list(self, limit: int = 100) -> Sequence[StoredPolicies]:
        """Newest first, without their sources."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT number, digest, author, created_at FROM policy_revisions ORDER BY number DESC LIMIT ?",
                (limit,),
            ).fetchall()
        )
        return [StoredPolicies(row[0], row[1], row[2], row[3], None) for row in rows]


def read_policy_revision(connection: Connection, number: int | None = None) -> StoredPolicies | None:
    """One revision with its source, the newest without a number."""
    row: Sequence[Any] | None = connection.execute(
        f"SELECT {_COLUMNS} FROM policy_revisions WHERE ?1 IS NULL OR number = ?1 ORDER BY number DESC LIMIT 1",  # noqa: S608 (fixed text)
        (number,),
    ).fetchone()
    if row is None:
        return None
    return StoredPolicies(row[0], row[1], row[2], row[3], parse_source_text(row[4], row[5], row[6]))
