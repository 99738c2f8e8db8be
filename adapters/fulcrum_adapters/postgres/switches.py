"""Kill switches in Postgres."""

from collections.abc import Sequence

from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["PostgresSwitches", "read_switches"]

_COLUMNS = "id, tenant, kind, target, reason, author, created_at"


class PostgresSwitches:
    """`SwitchRepository` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, switch: KillSwitch) -> None:
        """Raises `Conflict` when that target is stopped already."""
        row = (switch.id, switch.tenant, switch.kind, switch.target, switch.reason, switch.by, switch.at)
        with self._database.session("fulcrum_app", switch.tenant) as session:
            done = session.execute(
                f"INSERT INTO fulcrum.kill_switches ({_COLUMNS})"  # noqa: S608 (fixed text)
                " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                row,
            )
            if not done.rowcount:
                raise Conflict(
                    f"{switch.kind} {switch.target} is stopped already; list the kill switches to see by whom."
                )

    def list(self, tenant: str) -> Sequence[KillSwitch]:
        """One tenant's (or `EVERYBODY`'s), newest first."""
        with self._database.session("fulcrum_app", tenant) as session:
            rows = session.execute(
                f"SELECT {_COLUMNS} FROM fulcrum.kill_switches WHERE tenant = %s"  # noqa: S608 (fixed text)
                ' ORDER BY created_at DESC, id COLLATE "C" DESC',
                (tenant,),
            ).fetchall()
        return [KillSwitch(*row) for row in rows]

    def delete(self, tenant: str, switch_id: str) -> KillSwitch:
        """Raises `NotFound`, also for another tenant's."""
        with self._database.session("fulcrum_app", tenant) as session:
            row = session.execute(
                f"DELETE FROM fulcrum.kill_switches WHERE tenant = %s AND id = %s RETURNING {_COLUMNS}",  # noqa: S608 (fixed text)
                (tenant, switch_id),
            ).fetchone()
            if row is None:
                raise NotFound(f'no kill switch "{switch_id}"; list them to see their ids.')
        return KillSwitch(*row)


def read_switches(session: Session) -> tuple[KillSwitch, ...]:
    """Of all tenants that the session sees."""
    rows = session.execute(
        f'SELECT {_COLUMNS} FROM fulcrum.kill_switches ORDER BY id COLLATE "C"'  # noqa: S608 (fixed text)
    ).fetchall()
    return tuple([KillSwitch(*row) for row in rows])
