"""The audit trail of a Fulcrum elsewhere, over its REST API. Never follows a redirect: the key stays where it was meant."""

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from fulcrum_mcp.errors import Invalid, Unauthenticated, Unavailable

__all__ = ["RemoteTrail"]

_TIMEOUT = 60.0


class RemoteTrail:
    """`GET /api/v1/audit` and `/api/v1/audit/export` of one server, with `FULCRUM_API_KEY` or `FULCRUM_ADMIN_KEY`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Invalid(f"--url {url}: not an http(s) address such as http://127.0.0.1:8080")
        self._tls = parts.scheme == "https"
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            raise Invalid(f"--url {url}: not a port number") from None
        self._base = parts.path.rstrip("/")
        self._url = url
        key = os.environ.get("FULCRUM_API_KEY") or os.environ.get("FULCRUM_ADMIN_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def query(self, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        """Records as `control.audit.record_document` makes them."""
        wanted = {name: value for name, value in parameters.items() if value is not None}
        response = self._get(f"/api/v1/audit?{urlencode(wanted)}")
        try:
            records = json.loads(response.read())["records"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as exc:
            raise Unavailable(f"{self._url}: the answer is not what this version expects") from exc
        return list(records)

    def export(self) -> Iterator[bytes]:
        """Lines of an export, as they come. Raises `Unavailable` when the stream breaks off."""
        response = self._get("/api/v1/audit/export")
        try:
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(f"{self._url}: the export broke off; run it again") from exc

    def _get(self, path: str) -> http.client.HTTPResponse:
        make = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=_TIMEOUT)
        try:
            connection.request("GET", self._base + path, headers=self._headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(f"{self._url} does not answer ({exc}); is `fulcrum up` running there?") from exc
        if response.status == http.client.OK:
            return response
        if response.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            raise Unauthenticated(
                f"{self._url} answers {response.status}: set FULCRUM_API_KEY to a key with scope audit:read"
            )
        raise Unavailable(f"{self._url} answers {response.status} to {path.partition('?')[0]}: {_message(response)}")


def _message(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(2000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return response.reason
