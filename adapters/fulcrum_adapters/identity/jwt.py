"""Principals from the access tokens of an OAuth 2.1 authorization server (RFC 9068, RFC 8725).

Nothing in a token is followed: no key, no URL, no certificate in its header is ever used. PyJWT is imported with the
first token, because it and its keys take 150 ms.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

from fulcrum_adapters.identity.cache import PrincipalCache
from fulcrum_adapters.identity.config import JwtConfig
from fulcrum_adapters.identity.jwks import KeySet
from fulcrum_adapters.identity.presented import token_of
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import SCOPES
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["JwtVerifier"]

_LONGEST_TOKEN = 8_192
_LONGEST_TEXT = 256
_DEEPEST_ACT = 8
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
_HEADER = {"alg", "kid", "typ"}
"""All a header may hold; `crit`, `jku`, `jwk`, `x5u`, `x5c`, `b64`, `zip`, `enc` and unknown ones are refused."""
_HARMLESS = {"x5t", "x5t#S256", "cty"}
_SECOND = 1_000_000_000
_MALFORMED = "the token is not a JWT of the form this gateway accepts; get a new one"


class JwtVerifier:
    """`IdentityVerifier` for one issuer and one audience."""

    def __init__(
        self,
        config: JwtConfig,
        keys: KeySet,
        *,
        cache: PrincipalCache | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._keys = keys
        self._cache = cache or PrincipalCache()
        self._now = now

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated`; its message says what is wrong, never what was presented."""
        token = token_of(credentials)
        principal = self._cache.get(token)
        if principal is not None:
            return principal
        header, claims = _take_apart(token)
        algorithm, kid = self._header(header)
        now = self._now() // _SECOND
        expires = self._claims(claims, now)
        generation = self._cache.generation
        key = await self._keys.find(kid, algorithm)
        _check_signature(token, key, algorithm)
        principal = self._principal(claims)
        self._cache.put(token, principal, expires - now, generation)
        return principal

    def _header(self, header: Mapping[str, Any]) -> tuple[str, str | None]:
        kind = header.get("typ", "JWT")
        if set(header) - _HEADER - _HARMLESS or not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise Unauthenticated("the token's header holds something this gateway does not accept; get a plain one")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._config.algorithms:
            raise Unauthenticated("the token is signed in a way this gateway does not accept; get a new one")
        if kid is not None and not _is_text(kid):
            raise Unauthenticated(_MALFORMED)
        return algorithm, kid

    def _claims(self, claims: Mapping[str, Any], now: int) -> int:
        """Issuer, audience and times; gives the second at which the token ends."""
        if claims.get("iss") != self._config.issuer:
            raise Unauthenticated("the token is from another issuer; get one from this gateway's authorization server")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or self._config.resource not in audiences:
            raise Unauthenticated("the token is meant for another service; ask for one with this gateway as resource")
        expires = claims.get("exp")
        leeway = self._config.leeway
        if not _is_time(expires) or expires + leeway <= now:
            raise Unauthenticated("the token has ended; get a new one")
        for name in ("nbf", "iat"):
            begins = claims.get(name)
            if begins is not None and (not _is_time(begins) or begins - leeway > now):
                raise Unauthenticated("the token is not valid yet; check the clocks")
        return int(expires) + leeway

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        config = self._config
        subject = claims.get("sub")
        if not _is_text(subject):
            raise Unauthenticated("the token says nobody's name (sub); get one that does")
        tenant = config.tenant if config.tenant_claim is None else claims.get(config.tenant_claim)
        if not _is_text(tenant):
            raise Unauthenticated("the token names no tenant; get one that does")
        act = _actors(claims.get("act"))
        client = claims.get("client_id", claims.get("azp", subject))
        agent = act["sub"] if act is not None else client
        if not _is_text(agent):
            raise Unauthenticated(_MALFORMED)
        on_behalf_of: dict[str, Any] | None = None
        if agent != subject:
            on_behalf_of = {"sub": subject, "iss": config.issuer}
            if act is not None and "act" in act:
                on_behalf_of["act"] = act["act"]
        granted = claims.get("scope", "")
        words = granted.split(" ") if isinstance(granted, str) else []
        return Principal(
            tenant=tenant,
            agent=agent,
            key=f"jwt:{subject}",
            roles=_texts(claims.get(config.roles_claim)),
            scopes=frozenset(words) & config.scopes & frozenset(SCOPES),
            on_behalf_of=on_behalf_of,
        )

    def forget(self) -> None:
        """Check every token again."""
        self._cache.forget()


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_time(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(" ")
    if not isinstance(value, Sequence):
        return ()
    return tuple(item for item in value[:64] if _is_text(item))


def _actors(value: Any) -> dict[str, Any] | None:
    """The chain of actors (RFC 8693 section 4.1), with their names and issuers only."""
    chain: list[dict[str, Any]] = []
    while value is not None:
        if not isinstance(value, Mapping) or not _is_text(value.get("sub")) or len(chain) >= _DEEPEST_ACT:
            raise Unauthenticated("the token's chain of actors (act) is malformed or too long; get a new one")
        chain.append({key: value[key] for key in ("sub", "iss") if _is_text(value.get(key))})
        value = value.get("act")
    for outer, inner in pairwise(chain):
        outer["act"] = inner
    return chain[0] if chain else None


def _take_apart(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = token.split(".")
    if len(token) > _LONGEST_TOKEN or len(parts) != 3 or not all(parts) or not token.isascii():  # noqa: PLR2004 (header, claims, signature)
        raise Unauthenticated(_MALFORMED)
    _decode(parts[2])
    return _object(_decode(parts[0])), _object(_decode(parts[1]))


def _decode(part: str) -> bytes:
    """Base64url without padding, in its one canonical form (RFC 7515 section 2)."""
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated(_MALFORMED) from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise Unauthenticated(_MALFORMED)
    return decoded


def _object(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name appears twice")
        return found

    def refuse(_word: str) -> Any:
        raise ValueError("not JSON")

    try:
        document = json.loads(text.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Unauthenticated(_MALFORMED) from None
    if not isinstance(document, dict):
        raise Unauthenticated(_MALFORMED)
    return document


def _check_signature(token: str, key: Mapping[str, Any], algorithm: str) -> None:
    """The signature and nothing else: `_claims` has checked the rest, against the clock it was given."""
    import jwt  # noqa: PLC0415 (imported with the first token)

    try:
        public = jwt.PyJWK({name: value for name, value in key.items() if name not in {"d", "k"}}, algorithm).key
        jwt.PyJWS(options={"enforce_minimum_key_length": True}).decode(token, public, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as exc:
        raise Unauthenticated("the token's signature is wrong; get a new token") from exc
