"""Where a command acts: a running gateway over REST (`--url`), or a data folder (`--data`), behind one interface."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fulcrum_mcp.errors import Invalid

__all__ = ["Target", "gateway_address", "open_target"]


class Target(Protocol):
    """The control plane, in the words of its REST documents. Every method raises `FulcrumError`s."""

    def create_key(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`{"key": {...}, "key_secret": text}`; fields as in `POST /api/v1/keys`."""
        ...

    def list_keys(self) -> Sequence[dict[str, Any]]:
        """Newest first."""
        ...

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """The key as it now is."""
        ...

    def create_budget(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields as in `POST /api/v1/budgets`."""
        ...

    def list_budgets(self) -> Sequence[dict[str, Any]]:
        """With usage."""
        ...

    def delete_budget(self, budget_id: str) -> None:
        """Gone when it returns."""
        ...

    def throw_switch(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`{"kill_switch": {...}, "made": bool}`; fields as in `POST /api/v1/kill-switches`."""
        ...

    def list_switches(self, tenant: str | None) -> Sequence[dict[str, Any]]:
        """Of a tenant (None: one's own), and everybody's."""
        ...

    def lift_switch(self, switch_id: str, tenant: str | None) -> dict[str, Any]:
        """The switch that was lifted."""
        ...

    def publish_policies(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """`{"policies": {...}, "made": bool, "overruled": text or None}`."""
        ...

    def restore_policies(self, number: int) -> dict[str, Any]:
        """As `publish_policies`."""
        ...

    def list_policies(self) -> dict[str, Any]:
        """`{"policies": [...], "overruled": text or None}`, newest first, without sources."""
        ...

    def show_policies(self, number: int | None) -> dict[str, Any]:
        """With modules and data; None: the newest."""
        ...

    def list_servers(self) -> Sequence[dict[str, Any]]:
        """As configured."""
        ...


def gateway_address(url: str | None, data: Path | None, config: Path | None = None) -> str | None:
    """The gateway to ask: `--url`, else `FULCRUM_URL` when nothing is named; None: a data folder. Raises `Invalid`."""
    if url is not None and data is not None:
        raise Invalid("--url and --data are both given; a command acts on one of them.")
    if url is None and data is None and config is None:
        return os.environ.get("FULCRUM_URL") or None
    return url


@contextmanager
def open_target(
    url: str | None, data: Path | None, config: Path | None = None, *, must_exist: bool = True
) -> Generator[Target, None, None]:
    """One of the two; neither means `FULCRUM_URL`, else the default data folder.

    `must_exist`: refuse a data folder that no gateway has used yet. Raises `Invalid`, `Unavailable`.
    """
    address = gateway_address(url, data, config)
    if address is not None:
        from fulcrum_mcp.cli.remote import RemoteTarget  # noqa: PLC0415 (one of the two is needed)

        yield RemoteTarget(address)
        return
    from fulcrum_mcp.composition.local import open_local  # noqa: PLC0415 (same)

    with open_local(data, config, must_exist=must_exist) as target:
        yield target
