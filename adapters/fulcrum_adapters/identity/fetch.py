"""Fetch the issuer's keys from the address that the operator's file names, and from nowhere else."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fulcrum_adapters.identity.jwks import Fetch
from fulcrum_mcp.errors import Unavailable

__all__ = ["jwks_fetch"]

_TIMEOUT = 5.0
_MOST = 256 * 1024


def jwks_fetch(url: str) -> Fetch:
    """A `Fetch` of one URL: no redirect is followed, 256 KiB at most, 5 s for each step; it runs on a thread.

    The fetch raises `Unavailable`.
    """

    async def fetch() -> Mapping[str, Any]:
        return await asyncio.to_thread(_get, url)

    return fetch


def _get(url: str) -> Mapping[str, Any]:
    import http.client  # noqa: PLC0415 (40 ms that a gateway without [oauth] does not pay)

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"accept": "application/json"})
        response = connection.getresponse()
        text = response.read(_MOST + 1)
        document = json.loads(text) if response.status == http.client.OK and len(text) <= _MOST else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as exc:
        raise Unavailable(f"{url}: the issuer's keys cannot be fetched ({type(exc).__name__}).") from exc
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise Unavailable(f"{url}: answered something else than a JWK set ({response.status}).")
    return document
