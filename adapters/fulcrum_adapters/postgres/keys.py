"""API keys in Postgres."""

import json
from collections.abc import Sequence
from typing import Any

from fulcrum_adapters.postgres.database import Database
from fulcrum_mcp.errors import Conflict, NotFound
from fulcrum_mcp.ports import ApiKey

__all__ = ["PostgresKeys"]

_COLUMNS = "id, tenant, agent, name, roles, scopes, created_at, expires_at, revoked_at, require_envelope, digest"


class PostgresKeys:
    """`KeyRepository` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: ApiKey) -> None:
        """Raises `Conflict` when the id is taken."""
        row = (
            key.id,
            key.tenant,
            key.agent,
            key.name,
            json.dumps(key.roles),
            json.dumps(key.scopes),
            key.created_at,
            key.expires_at,
            key.revoked_at,
            key.require_envelope,
            key.digest,
        )
        with self._database.session("fulcrum_app", key.tenant) as session:
            done = session.execute(
                f"INSERT INTO fulcrum.api_keys ({_COLUMNS})"  # noqa: S608 (fixed text)
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
                row,
            )
            if not done.rowcount:
                raise Conflict(f'key "{key.id}" exists already; make another one.')

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant."""
        with self._database.session("fulcrum_gateway") as session:
            row = session.execute(
                f"SELECT {_COLUMNS} FROM fulcrum.api_keys WHERE id = %s",  # noqa: S608 (fixed text)
                (key_id,),
            ).fetchone()
        return _key(row) if row is not None else None

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        with self._database.session("fulcrum_app", tenant) as session:
            rows = session.execute(
                f"SELECT {_COLUMNS} FROM fulcrum.api_keys WHERE tenant = %s"  # noqa: S608 (fixed text)
                ' ORDER BY created_at DESC, id COLLATE "C" DESC',
                (tenant,),
            ).fetchall()
        return [_key(row) for row in rows]

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent: the first time stays. Raises `NotFound`, also for another tenant's key."""
        with self._database.session("fulcrum_app", tenant) as session:
            row = session.execute(
                "UPDATE fulcrum.api_keys SET revoked_at = coalesce(revoked_at, %s) WHERE tenant = %s AND id = %s"  # noqa: S608 (fixed text)
                f" RETURNING {_COLUMNS}",
                (at, tenant, key_id),
            ).fetchone()
            if row is None:
                raise NotFound(f'no key "{key_id}"; list them to see their ids.')
        return _key(row)


def _key(row: Sequence[Any]) -> ApiKey:
    return ApiKey(
        id=row[0],
        tenant=row[1],
        agent=row[2],
        name=row[3],
        roles=tuple(json.loads(row[4])),
        scopes=tuple(json.loads(row[5])),
        created_at=row[6],
        expires_at=row[7],
        revoked_at=row[8],
        require_envelope=row[9],
        digest=row[10],
    )
