"""A recorded decision and the input that policy saw, from the data folder or from a running server."""

import http.client
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fulcrum_mcp.errors import Invalid, NotFound, Unauthenticated, Unavailable, Unprivileged

__all__ = ["recorded"]

_TIMEOUT = 30.0
_MAX_ANSWER = 8 << 20
_OK, _UNAUTHENTICATED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404


def recorded(decision_id: str, data: Path | None, url: str | None) -> tuple[dict[str, Any], Any]:
    """(the record's data, the redacted input or None). Raises `NotFound`, `Invalid`, `Unavailable`, ..."""
    if data is not None and url is not None:
        raise Invalid("explain: give --data or --url, not both")
    if url is not None:
        answer = _fetch(url, decision_id)
        return answer["decided"]["data"], answer["inputs"]
    from fulcrum_mcp.composition.audit import open_reader  # noqa: PLC0415 - loads SQLite
    from fulcrum_mcp.settings import load  # noqa: PLC0415

    folder = load(None, environ=os.environ, overrides={"data": data}).data
    found = open_reader(folder).decision(None, decision_id)
    if found is None:
        raise NotFound(f"{folder}: no decision {decision_id}; `fulcrum audit query` lists them")
    return json.loads(found.decided)["data"], None if found.inputs is None else json.loads(found.inputs)


def _fetch(url: str, decision_id: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise Invalid(f"--url {url}: {exc}; write an address such as http://127.0.0.1:8080") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid(f"--url {url}: not an http(s) address such as http://127.0.0.1:8080")
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    key = os.environ.get("FULCRUM_API_KEY") or os.environ.get("FULCRUM_ADMIN_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection = make(parts.hostname, port, timeout=_TIMEOUT)
    try:
        connection.request(
            "GET", f"{parts.path.rstrip('/')}/api/v1/decisions/{quote(decision_id, safe='')}", headers=headers
        )
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER)
        status = response.status
        answer = json.loads(body) if status == _OK else {}
    except (OSError, http.client.HTTPException) as exc:
        raise Unavailable(f"{url} does not answer ({exc}); is `fulcrum up` running there?") from exc
    except ValueError as exc:
        raise Unavailable(f"{url}: the answer is not what this version expects") from exc
    finally:
        connection.close()
    if status == _UNAUTHENTICATED:
        raise Unauthenticated(f"{url}: no valid key; set FULCRUM_API_KEY")
    if status == _FORBIDDEN:
        raise Unprivileged(f"{url}: the key lacks scope audit:read")
    if status == _NOT_FOUND:
        raise NotFound(f"{url}: no decision {decision_id}; `fulcrum audit query --url ...` lists them")
    if status != _OK or not isinstance(answer, dict) or not isinstance(answer.get("decided"), dict):
        raise Unavailable(f"{url}: answered with status {status}")
    return answer
