"""Kill switches in `fulcrum.db`."""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["SqliteSwitches", "read_switches"]

_COLUMNS = "id, tenant, kind, target, reason, author, created_at"


class SqliteSwitches:
    """`SwitchRepository` on a `ControlDatabase`."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def add(self, switch: KillSwitch) -> None:
        """Raises `Conflict` when that target is stopped already."""
        row = (switch.id, switch.tenant, switch.kind, switch.target, switch.reason, switch.by, switch.at)

        def act(connection: Connection) -> None:
            done = connection.execute(
                f"INSERT INTO kill_switches ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",  # noqa: S608 (fixed text)
                row,
            )
            if not done.rowcount:
                raise Conflict(
                    f"{switch.kind} {switch.target} is stopped already; list the kill switches to see by whom."
                )

        self._database.change(act)

    def list(self, tenant: str) -> Sequence[KillSwitch]:
        """One tenant's, newest first."""
        rows = self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM kill_switches WHERE tenant = ? ORDER BY created_at DESC, id DESC",  # noqa: S608 (fixed text)
                (tenant,),
            ).fetchall()
        )
        return [_switch(row) for row in rows]

    def delete(self, tenant: str, switch_id: str) -> KillSwitch:
        """Raises `NotFound`, also for another tenant's."""

        def act(connection: Connection) -> Any:
            row = connection.execute(
                f"DELETE FROM kill_switches WHERE tenant = ? AND id = ? RETURNING {_COLUMNS}",  # noqa: S608 (fixed text)
                (tenant, switch_id),
            ).fetchone()
            if row is None:
                raise NotFound(f'no kill switch "{switch_id}"; list them to see their ids.')
            return row

        return _switch(self._database.change(act))


def read_switches(connection: Connection) -> tuple[KillSwitch, ...]:
    """Of all tenants, for the snapshot."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM kill_switches ORDER BY id")  # noqa: S608 (fixed text)
    return tuple([_switch(row) for row in rows])


def _switch(row: Sequence[Any]) -> KillSwitch:
    return KillSwitch(*row)
