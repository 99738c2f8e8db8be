"""The authorization server's keys: fetched by a function given from outside, kept, asked for again when one is new."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fulcrum_mcp.errors import Unauthenticated, Unavailable

__all__ = ["Fetch", "KeySet"]

Fetch = Callable[[], Awaitable[Mapping[str, Any]]]
"""Gives a JWK set (RFC 7517) as a JSON object; raises `Unavailable`. It must not follow what a token says."""

_MOST_KEYS = 64
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class KeySet:
    """Keys by id. `fresh` seconds without asking; `stale` seconds when the server does not answer.

    An unknown id asks again, at most once every `pause` seconds, whoever sends it; an answer may take `patience`.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        fresh: float = 300.0,
        stale: float = 3600.0,
        pause: float = 30.0,
        patience: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fresh = fresh
        self._stale = stale
        self._pause = pause
        self._patience = patience
        self._monotonic = monotonic
        self._keys: list[Mapping[str, Any]] = []
        self._fetched_at = -float("inf")
        self._asked_at = -float("inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> Mapping[str, Any]:
        """The public key for `kid` that can make `algorithm`; without a kid only when there is just one such key.

        Raises `Unauthenticated`.
        """
        if self._monotonic() - self._fetched_at > self._fresh:
            await self._refresh(self._fetched_at)
        found = self._pick(kid, algorithm)
        if found is None:
            await self._refresh(self._fetched_at)
            found = self._pick(kid, algorithm)
        if found is None:
            raise Unauthenticated("the token's signing key is not one of its issuer's; get a new token")
        return found

    def _pick(self, kid: str | None, algorithm: str) -> Mapping[str, Any] | None:
        if self._monotonic() - self._fetched_at > self._stale:
            return None
        fitting = [key for key in self._keys if _fits(key, algorithm) and (kid is None or key.get("kid") == kid)]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh(self, seen: float) -> None:
        async with self._lock:
            now = self._monotonic()
            if self._fetched_at != seen or now - self._asked_at < self._pause:
                return
            self._asked_at = now
            try:
                async with asyncio.timeout(self._patience):
                    document = await self._fetch()
            except (Unavailable, TimeoutError):
                return
            keys = document.get("keys")
            if isinstance(keys, list):
                self._keys = [key for key in keys[:_MOST_KEYS] if isinstance(key, Mapping)]
                self._fetched_at = now


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Key type, curve, `use` and `alg` all agree with the algorithm (RFC 8725 section 3.1)."""
    return (
        key.get("kty") == _KINDS.get(algorithm[:2])
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (algorithm not in _CURVES or key.get("crv") == _CURVES[algorithm])
        and "verify" in key.get("key_ops", ("verify",))
    )
