"""Principals from API keys."""

import time
from collections.abc import Callable

from fulcrum_adapters.identity.cache import LONGEST, PrincipalCache
from fulcrum_adapters.identity.lookup import KeyLookup
from fulcrum_adapters.identity.presented import token_of
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import matches, parse_key
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import ApiKey, Credentials, KeyRepository

__all__ = ["ApiKeyVerifier"]

_SECOND = 1_000_000_000
_NOBODY = "0" * 64
_REFUSED = (
    "this API key is not valid (unknown, revoked or expired); ask for a new one, or list keys with fulcrum keys list"
)


class ApiKeyVerifier:
    """`IdentityVerifier` over a `KeyRepository`. A hit costs one hash; a miss one short read on a worker thread."""

    def __init__(
        self,
        keys: KeyRepository,
        *,
        cache: PrincipalCache | None = None,
        lookup: KeyLookup | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cache = cache or PrincipalCache()
        self._now = now
        self.lookup = lookup or KeyLookup(keys.get)

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated`, the same for every reason, or `Unavailable`."""
        token = token_of(credentials)
        principal = self._cache.get(token)
        if principal is not None:
            return principal
        presented = parse_key(token)
        if presented is None:
            raise Unauthenticated(_REFUSED)
        generation = self._cache.generation
        key = await self.lookup(presented.id)
        genuine = matches(presented.secret, key.digest if key is not None else _NOBODY)
        now = self._now()
        if key is None or not genuine or key.revoked_at is not None or _ended(key, now):
            raise Unauthenticated(_REFUSED)
        principal = Principal(
            tenant=key.tenant,
            agent=key.agent,
            key=key.id,
            roles=key.roles,
            scopes=frozenset(key.scopes),
            require_envelope=key.require_envelope,
        )
        left = LONGEST if key.expires_at is None else (key.expires_at - now) / _SECOND
        self._cache.put(token, principal, left, generation)
        return principal

    def forget(self) -> None:
        """Ask the repository again for every key: the revision has changed."""
        self._cache.forget()


def _ended(key: ApiKey, now: int) -> bool:
    return key.expires_at is not None and key.expires_at <= now
