"""Revisions of policies in Postgres. They bind every tenant, so they belong to none."""

from collections.abc import Sequence

from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_mcp.core.policy import PolicySource, parse_source_text, source_digest, source_text
from fulcrum_mcp.ports import StoredPolicies

__all__ = ["PostgresPolicies", "read_policy_revision"]

_COLUMNS = "number, digest, author, created_at, name, modules, data"
_OF_NO_TENANT = ""
_LOCK = 0x66756C63706F6C
"""`fulcpol` in ASCII: one new revision at a time, so that numbers have no gap."""


class PostgresPolicies:
    """`PolicyRepository` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, source: PolicySource, author: str, at: int) -> StoredPolicies:
        """Make it the newest revision; the same digest as the newest makes none."""
        digest = source_digest(source)
        modules, data = source_text(source)
        with self._database.session("fulcrum_app", _OF_NO_TENANT) as session:
            session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            newest = session.execute(
                "SELECT number, digest FROM fulcrum.policy_revisions ORDER BY number DESC LIMIT 1"
            ).fetchone()
            if newest is None or newest[1] != digest:
                number = 1 if newest is None else newest[0] + 1
                session.execute(
                    f"INSERT INTO fulcrum.policy_revisions ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)",  # noqa: S608 (fixed text)
                    (number, digest, author, at, source.name, modules, data),
                )
                return StoredPolicies(number, digest, author, at, source)
            found = read_policy_revision(session, newest[0])
        assert found is not None
        return found

    def get(self, number: int | None = None) -> StoredPolicies | None:
        """A revision with its source, the newest without a number."""
        with self._database.session("fulcrum_app", _OF_NO_TENANT) as session:
            return read_policy_revision(session, number)

    def list(self, limit: int = 100) -> Sequence[StoredPolicies]:
        """Newest first, without their sources."""
        with self._database.session("fulcrum_app", _OF_NO_TENANT) as session:
            rows = session.execute(
                "SELECT number, digest, author, created_at FROM fulcrum.policy_revisions ORDER BY number DESC LIMIT %s",
                (limit,),
            ).fetchall()
        return [StoredPolicies(number, digest, author, at, None) for number, digest, author, at in rows]


def read_policy_revision(session: Session, number: int | None = None) -> StoredPolicies | None:
    """One revision with its source, the newest without a number."""
    row = session.execute(
        f"SELECT {_COLUMNS} FROM fulcrum.policy_revisions WHERE %(number)s::bigint IS NULL OR number = %(number)s"  # noqa: S608 (fixed text)
        " ORDER BY number DESC LIMIT 1",
        {"number": number},
    ).fetchone()
    if row is None:
        return None
    return StoredPolicies(row[0], row[1], row[2], row[3], parse_source_text(row[4], row[5], row[6]))
