"""A running gateway over REST, with the standard library only. Redirects are not followed: a key goes to one place."""

import http.client
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from fulcrum_mcp.errors import (
    Conflict,
    FulcrumError,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    Unprivileged,
)

__all__ = ["RemoteTarget"]

_TIMEOUT = 30.0
_MOST = 64 << 20
_ERRORS: dict[str, type[FulcrumError]] = {
    error.code: error for error in (Conflict, Invalid, NotFound, Unauthenticated, Unavailable, Unprivileged)
}
_BY_STATUS = {401: Unauthenticated, 403: Unprivileged, 404: NotFound, 409: Conflict}


class RemoteTarget:
    """`Target` over `/api/v1`; the key comes from `FULCRUM_API_KEY`, else `FULCRUM_ADMIN_KEY` (or their files)."""

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Invalid(f'--url: "{url}" is not an address; write for example http://127.0.0.1:8080.') from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise Invalid(f'--url: "{url}" is not an http(s) address; write for example http://127.0.0.1:8080.')
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._key = key or _key()

    def create_key(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        return self._object("POST", "/api/v1/keys", fields)

    def list_keys(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return self._list("/api/v1/keys", "keys")

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """See `Target`."""
        found: dict[str, Any] = self._object("DELETE", f"/api/v1/keys/{quote(key_id, safe='')}")["key"]
        return found

    def create_budget(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        found: dict[str, Any] = self._object("POST", "/api/v1/budgets", fields)["budget"]
        return found

    def list_budgets(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return self._list("/api/v1/budgets", "budgets")

    def delete_budget(self, budget_id: str) -> None:
        """See `Target`."""
        self.request("DELETE", f"/api/v1/budgets/{quote(budget_id, safe='')}")

    def throw_switch(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target`."""
        return self._object("POST", "/api/v1/kill-switches", fields)

    def list_switches(self, tenant: str | None) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return self._list("/api/v1/kill-switches" + _of(tenant), "kill_switches")

    def lift_switch(self, switch_id: str, tenant: str | None) -> dict[str, Any]:
        """See `Target`."""
        path = f"/api/v1/kill-switches/{quote(switch_id, safe='')}{_of(tenant)}"
        found: dict[str, Any] = self._object("DELETE", path)["kill_switch"]
        return found

    def publish_policies(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """See `Target`."""
        return self._object("POST", "/api/v1/policies", {"name": name, "files": dict(files)})

    def restore_policies(self, number: int) -> dict[str, Any]:
        """See `Target`."""
        return self._object("POST", f"/api/v1/policies/{number}/restore")

    def list_policies(self) -> dict[str, Any]:
        """See `Target`."""
        return self._object("GET", "/api/v1/policies")

    def show_policies(self, number: int | None) -> dict[str, Any]:
        """See `Target`."""
        found: dict[str, Any] = self._object("GET", f"/api/v1/policies/{number or 'current'}")["policies"]
        return found

    def list_servers(self) -> Sequence[dict[str, Any]]:
        """See `Target`."""
        return self._list("/api/v1/servers", "servers")

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request; the parsed answer, None when it is empty. Raises `FulcrumError`s."""
        text = self.text(method, path, body)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise Unavailable(f"{self._url}: answered something else than JSON; is it a Fulcrum?") from None

    def text(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """As `request`, the answer as it came."""
        with self._open(method, path, "application/json", body) as response:
            try:
                return response.read(_MOST)
            except (OSError, http.client.HTTPException) as exc:
                raise self._silent(exc) from exc

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a long answer as they come, line breaks included. Raises `FulcrumError`s."""
        with self._open("GET", path, "application/x-ndjson") as response:
            try:
                while line := response.readline():
                    yield line
            except (OSError, http.client.HTTPException) as exc:
                raise Unavailable(f"{self._url}: the answer broke off; try again") from exc

    def unexpected(self) -> Unavailable:
        """What to raise for an answer that makes no sense."""
        return Unavailable(f"{self._url}: answered something unexpected; is it a Fulcrum of this version?")

    @contextmanager
    def _open(
        self, method: str, path: str, accept: str, body: Mapping[str, Any] | None = None
    ) -> Generator[http.client.HTTPResponse, None, None]:
        """An answer whose status is good."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        headers = {"accept": accept, "authorization": f"Bearer {self._key}"}
        content = None
        if body is not None:
            content = json.dumps(body)
            headers["content-type"] = "application/json"
        connection = kind(self._host, self._port, timeout=_TIMEOUT)
        try:
            try:
                connection.request(method, self._prefix + path, content, headers)
                response = connection.getresponse()
                good = http.client.OK <= response.status < http.client.MULTIPLE_CHOICES
                refusal = b"" if good else response.read(_MOST)
            except (OSError, http.client.HTTPException) as exc:
                raise self._silent(exc) from exc
            if not good:
                raise self._refused(response.status, refusal)
            yield response
        finally:
            connection.close()

    def _silent(self, exc: Exception) -> Unavailable:
        said = getattr(exc, "strerror", None) or type(exc).__name__
        return Unavailable(f"{self._url}: does not answer ({said}); is a gateway running there?")

    def _refused(self, status: int, text: bytes) -> FulcrumError:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        fields = document if isinstance(document, dict) else {}
        error = _ERRORS.get(str(fields.get("code")), _BY_STATUS.get(status, Unavailable))
        return error(f"{self._url}: {fields.get('error') or f'answered {status}; is it a Fulcrum?'}")

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found = self.request(method, path, body)
        if not isinstance(found, dict):
            raise self.unexpected()
        return found

    def _list(self, path: str, name: str) -> Sequence[dict[str, Any]]:
        found = self._object("GET", path).get(name)
        if not isinstance(found, list):
            raise self.unexpected()
        return found


def _of(tenant: str | None) -> str:
    return "" if tenant is None else f"?tenant={quote(tenant, safe='')}"


def _key() -> str:
    for name in ("FULCRUM_API_KEY", "FULCRUM_ADMIN_KEY"):
        value = os.environ.get(name)
        path = os.environ.get(f"{name}_FILE")
        if not value and path:
            try:
                with open(path) as file:  # noqa: PTH123 (pathlib costs more to import than this command)
                    value = file.read(4096)
            except (OSError, UnicodeDecodeError) as exc:
                raise Invalid(f"{name}_FILE: {path} cannot be read; check the path and its permissions.") from exc
        value = (value or "").strip()
        if value and not (value.isascii() and value.isprintable()):
            raise Invalid(f"{name}: holds a character that no key has; set it to the key alone")
        if value:
            return value
    raise Invalid("--url needs a key; set FULCRUM_API_KEY (fulcrum keys create makes one).")
