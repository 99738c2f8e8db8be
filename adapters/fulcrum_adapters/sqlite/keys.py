"""API keys in `fulcrum.db`."""

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_mcp.errors import Conflict, NotFound
from fulcrum_mcp.ports import ApiKey

__all__ = ["SqliteKeys"]

_COLUMNS = "id, tenant, agent, name, roles, scopes, created_at, expires_at, revoked_at, require_envelope, digest"


class SqliteKeys:
    """`KeyRepository` on a `ControlDatabase`."""

    def __init__(self, database: ControlDatabase) -> None:
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
            int(key.require_envelope),
            key.digest,
        )

        def act(connection: Connection) -> None:
            marks = ", ".join("?" * len(row))
            done = connection.execute(
                f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING",  # noqa: S608 (fixed text)
                row,
            )
            if not done.rowcount:
                raise Conflict(f'key "{key.id}" exists already; make another one.')

        self._database.change(act)

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant."""
        row = self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM api_keys WHERE id = ?",  # noqa: S608 (fixed text)
                (key_id,),
            ).fetchone()
        )
        return _key(row) if row is not None else None

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        rows = self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM api_keys WHERE tenant = ? ORDER BY created_at DESC, id DESC",  # noqa: S608 (fixed text)
                (tenant,),
            ).fetchall()
        )
        return [_key(row) for row in rows]

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent: the first time stays. Raises `NotFound`, also for another tenant's key."""

        def act(connection: Connection) -> Any:
            connection.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE tenant = ? AND id = ?",
                (at, tenant, key_id),
            )
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM api_keys WHERE tenant = ? AND id = ?",  # noqa: S608 (fixed text)
                (tenant, key_id),
            ).fetchone()
            if row is None:
                raise NotFound(f'no key "{key_id}"; list them to see their ids.')
            return row

        return _key(self._database.change(act))


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
        require_envelope=bool(row[9]),
        digest=row[10],
    )
