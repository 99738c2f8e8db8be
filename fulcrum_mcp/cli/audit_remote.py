"""A running gateway's audit trail over REST: records as the bytes that were signed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from fulcrum_mcp.cli.remote import RemoteTarget
from fulcrum_mcp.ports import AuditQuery

__all__ = ["RemoteTrail"]

_FIELDS = ("tool", "effect", "agent", "type", "call", "decision", "limit", "after", "before")


class _Page(msgspec.Struct):
    records: list[msgspec.Raw]
    next: int | None


class _Decision(msgspec.Struct):
    decided: dict[str, Any]
    inputs: Any
    finished: list[dict[str, Any]]


class RemoteTrail:
    """`GET /api/v1/audit`, `/api/v1/audit/export` and `/api/v1/decisions/{id}`; see `RemoteTarget` for the key."""

    def __init__(self, url: str) -> None:
        self._target = RemoteTarget(url)

    def query(self, wanted: AuditQuery) -> tuple[list[bytes], int | None]:
        """Records, and the row to go on from. Raises `FulcrumError`s."""
        given: dict[str, object] = {name: getattr(wanted, name) for name in _FIELDS}
        for name, moment in (("since", wanted.since), ("until", wanted.until)):
            given[name] = None if moment is None else datetime.fromtimestamp(moment / 1e9, UTC).isoformat()
        asked = urlencode({key: value for key, value in given.items() if value is not None})
        page = self._read(f"/api/v1/audit?{asked}", _Page)
        return [bytes(record) for record in page.records], page.next

    def decision(self, decision_id: str) -> tuple[dict[str, Any], Any]:
        """The `decided` record and what policy saw, None when it is not kept. Raises `FulcrumError`s."""
        found = self._read(f"/api/v1/decisions/{quote(decision_id, safe='')}", _Decision)
        return found.decided, found.inputs

    def export(self) -> Iterator[bytes]:
        """Lines of an export, as they come."""
        return self._target.lines("/api/v1/audit/export")

    def _read(self, path: str, shape: Any) -> Any:
        try:
            return msgspec.json.decode(self._target.text("GET", path), type=shape)
        except msgspec.MsgspecError as exc:
            raise self._target.unexpected() from exc
