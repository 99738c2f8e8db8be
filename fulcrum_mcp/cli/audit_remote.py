"""The audit trail of a Fulcrum elsewhere, over its REST API."""

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlencode

from fulcrum_mcp.cli.remote import RemoteTarget
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditQuery

__all__ = ["RemoteTrail"]

_FIELDS = ("tool", "effect", "agent", "type", "call", "decision", "limit", "after", "before")


class RemoteTrail(RemoteTarget):
    """`GET /api/v1/audit` and `/api/v1/audit/export`."""

    def query(self, wanted: AuditQuery) -> tuple[list[bytes], int]:
        """Records, and the row to go on after."""
        given: dict[str, object] = {name: getattr(wanted, name) for name in _FIELDS}
        for name, moment in (("since", wanted.since), ("until", wanted.until)):
            given[name] = None if moment is None else datetime.fromtimestamp(moment / 1e9, UTC).isoformat()
        document = self.request("GET", "/api/v1/audit?" + urlencode({k: v for k, v in given.items() if v is not None}))
        try:
            lines = [json.dumps(record, separators=(",", ":")).encode() for record in document["records"]]
            return lines, int(document["next"] or 0)
        except (KeyError, TypeError, ValueError) as exc:
            raise Unavailable(f"{self._url}: answered something unexpected; is it a Fulcrum of this version?") from exc

    def export(self) -> Iterator[bytes]:
        """Lines of an export, as they come."""
        connection, response = self._open("GET", "/api/v1/audit/export", "application/x-ndjson")
        try:
            if response.status != http.client.OK:
                self._read(response.status, response.read(1 << 20))
                raise Unavailable(f"{self._url}: answered {response.status}; is it a Fulcrum?")
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(f"{self._url}: the export broke off; run it again") from exc
        finally:
            connection.close()

    def _open(self, method: str, path: str, accept: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=60)
        try:
            headers = {"accept": accept, "authorization": f"Bearer {self._key}"}
            connection.request(method, self._prefix + path, headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            said = getattr(exc, "strerror", None) or type(exc).__name__
            raise Unavailable(f"{self._url}: does not answer ({said}); is fulcrum up running there?") from exc
