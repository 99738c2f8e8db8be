"""The control plane of a data folder for one short command, run by whoever may write that folder."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fulcrum_mcp.composition.control import OPERATOR, ControlPlane, open_control, open_ledger_usage
from fulcrum_mcp.composition.management import into_spool
from fulcrum_mcp.control.budgets import budget_document
from fulcrum_mcp.control.keys import key_document
from fulcrum_mcp.control.policies import Published, policies_document
from fulcrum_mcp.control.servers import server_document
from fulcrum_mcp.control.switches import switch_document
from fulcrum_mcp.core.switch import EVERYBODY
from fulcrum_mcp.errors import Invalid, Unavailable
from fulcrum_mcp.settings import Settings, load

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

    def throw_switch(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        tenant, everybody = fields.get("tenant"), fields.get("everybody", False)
        if everybody and tenant is not None:
            raise Invalid("tenant and everybody: give one of them")
        thrown = self._plane.switches.throw(
            OPERATOR, fields.get("target"), fields.get("reason"), EVERYBODY if everybody else tenant
        )
        return {"kill_switch": switch_document(thrown.switch), "made": thrown.made}

    def list_switches(self, tenant: str | None) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        found = self._plane.switches.list_of(OPERATOR, OPERATOR.tenant if tenant is None else tenant)
        return [switch_document(switch) for switch in found]

    def lift_switch(self, switch_id: str, tenant: str | None) -> dict[str, Any]:
        """See `Target`."""
        return switch_document(self._plane.switches.lift(OPERATOR, switch_id, tenant))

    def publish_policies(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """See `Target`."""
        return self._published(self._plane.policies.publish(OPERATOR, name, files))

    def restore_policies(self, number: int) -> dict[str, Any]:
        """See `Target`."""
        return self._published(self._plane.policies.restore(OPERATOR, number))

    def _published(self, published: Published) -> dict[str, Any]:
        document = policies_document(replace(published.policies, source=None))
        return {"policies": document, "made": published.made, "overruled": self._plane.policies.overruled()}

    def list_policies(self) -> dict[str, Any]:
        """See `Target`."""
        found = [policies_document(each) for each in self._plane.policies.list(OPERATOR)]
        return {"policies": found, "overruled": self._plane.policies.overruled()}

    def show_policies(self, number: int | None) -> dict[str, Any]:
        """See `Target`."""
        return policies_document(self._plane.policies.show(OPERATOR, number))

    def list_servers(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return [server_document(view) for view in self._plane.servers.list(OPERATOR)]


@contextmanager
def open_local(data: Path | None, config: Path | None, *, must_exist: bool) -> Generator[LocalTarget, None, None]:
    """Open the folder's store beside whoever else uses it. Raises `Invalid`, `Unavailable`."""
    settings = load(config, environ=os.environ, overrides={"data": data})
    if settings.postgres is not None:
        raise Invalid(
            f"{settings.data}: this installation keeps its configuration in Postgres; name a gateway with --url"
        )
    if must_exist and not (settings.data / "fulcrum.db").exists():
        raise Unavailable(
            f"{settings.data}: no Fulcrum has used this folder yet; start fulcrum up, or name another with --data"
        )
    usage, close_usage = open_ledger_usage(settings.data)
    record = into_spool(settings.data)
    plane = open_control(settings, usage, record=record, overruled=lambda: _overruled(settings))
    try:
        yield LocalTarget(plane)
    finally:
        plane.close()
        close_usage()


def _overruled(settings: Settings) -> str | None:
    """What the gateway of this folder was started with last tells whether it judges by what is published."""
    from fulcrum_mcp.composition.policy import STORED, remembered_policies  # noqa: PLC0415 - loads the engine
    from fulcrum_mcp.composition.snapshots import OBSERVE  # noqa: PLC0415 - same

    last = remembered_policies(settings.data)
    if last is None or last == OBSERVE or last.startswith(STORED):
        return None
    return f"the last gateway of this folder was started with --policies {last}; those win over what is published"
