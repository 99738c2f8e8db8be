"""The control plane of a data folder for one short command, run by whoever may write that folder."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fulcrum_mcp.composition.control import OPERATOR, ControlPlane, open_control, open_ledger_usage
from fulcrum_mcp.composition.management import into_spool
from fulcrum_mcp.control.budgets import budget_document
from fulcrum_mcp.control.keys import key_document
from fulcrum_mcp.control.servers import server_document
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.settings import load

__all__ = ["LocalTarget", "open_local"]


class LocalTarget:
    """`cli.target.Target` over an opened control plane, as the operator of tenant `default`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def create_key(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        known = dict(fields)
        expires_in = known.pop("expires_in_seconds", None)
        made = self._plane.keys.create(OPERATOR, expires_in=expires_in, **known)
        return {"key": key_document(made.key), "key_secret": made.text}

    def list_keys(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return [key_document(key) for key in self._plane.keys.list(OPERATOR)]

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """See `Target`."""
        return key_document(self._plane.keys.revoke(OPERATOR, key_id))

    def create_budget(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        return budget_document(self._plane.budgets.create(OPERATOR, fields))

    def list_budgets(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return [budget_document(view) for view in self._plane.budgets.list(OPERATOR)]

    def delete_budget(self, budget_id: str) -> None:
        """See `Target`."""
        self._plane.budgets.delete(OPERATOR, budget_id)

    def list_servers(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return [server_document(view) for view in self._plane.servers.list(OPERATOR)]


@contextmanager
def open_local(data: Path | None, config: Path | None, *, must_exist: bool) -> Generator[LocalTarget, None, None]:
    """Open the folder's store beside whoever else uses it. Raises `Invalid`, `Unavailable`."""
    settings = load(config, environ=os.environ, overrides={"data": data})
    if must_exist and not (settings.data / "fulcrum.db").exists():
        raise Unavailable(
            f"{settings.data}: no Fulcrum has used this folder yet; start fulcrum up, or name another with --data"
        )
    usage, close_usage = open_ledger_usage(settings.data)
    plane = open_control(settings, usage, record=into_spool(settings.data))
    try:
        yield LocalTarget(plane)
    finally:
        plane.close()
        close_usage()
