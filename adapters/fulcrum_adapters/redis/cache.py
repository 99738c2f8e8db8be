"""What need not be asked of the store at every turn: keys for a minute, policy texts by their digest.

A cache may be lost, stopped or full at any time: then the store is asked. It never says that something does not exist,
and nothing in it is believed that no gateway has written: whoever can write to the server must not make keys.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fulcrum_adapters.redis.naming import joined
from fulcrum_adapters.redis.server import RedisServer
from fulcrum_mcp.core.policy import PolicyModule, PolicySource, source_digest
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey, KeyRepository

__all__ = ["CachedKeys", "PolicyCache"]

SECOND = 1_000_000_000
_LONGEST = 60
_SKEW = 5 * SECOND
"""How far ahead another gateway's clock may be."""
_SEAL = 32
"""Bytes before an entry: HMAC-SHA-256 over its name and itself."""
_MODULES_KEPT = 30 * 86_400_000
_encode = msgspec.msgpack.Encoder().encode


class _Entry(msgspec.Struct, array_like=True):
    revision: int
    at: int
    key: ApiKey


class _Body(msgspec.Struct, array_like=True):
    modules: list[tuple[str, str]]
    data: dict[str, Any]
    name: str


_entry = msgspec.msgpack.Decoder(_Entry).decode
_body = msgspec.msgpack.Decoder(_Body).decode


class CachedKeys:
    """`KeyRepository` before another one: `get` is read through.

    An entry counts for `ttl` seconds, 60 at most, and for one revision of the configuration only: revoking a key makes
    a new one. So a store that is down is not missed while the entry counts.
    """

    def __init__(
        self,
        keys: KeyRepository,
        server: RedisServer,
        revision: Callable[[], int],
        secret: bytes,
        *,
        ttl: int = _LONGEST,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`secret` is what the gateways of an installation share, and nobody else has."""
        self._keys = keys
        self._server = server
        self._revision = revision
        self._secret = secret
        self._ttl = min(ttl, _LONGEST)
        self._clock = clock

    def add(self, key: ApiKey) -> None:
        """Raises `Conflict` when the id is taken."""
        self._keys.add(key)

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant: for authentication only."""
        revision = self._revision()  # before the store is asked: what it says may be newer, never older
        name = f"{self._server.config.prefix}key:{joined(key_id)}"
        found = self._cached(name, key_id, revision)
        if found is not None:
            return found
        key = self._keys.get(key_id)
        if key is not None:
            entry = _encode(_Entry(revision, self._clock(), key))
            _quietly(self._server, "SET", name, self._seal(name, entry) + entry, "PX", str(self._ttl * 1_000))
        return key

    def _cached(self, name: str, key_id: str, revision: int) -> ApiKey | None:
        said = _quietly(self._server, "GET", name)
        if not isinstance(said, bytes):
            return None
        seal, raw = said[:_SEAL], said[_SEAL:]
        if not hmac.compare_digest(seal, self._seal(name, raw)):
            return None
        try:
            entry = _entry(raw)
        except msgspec.MsgspecError:
            return None
        age = self._clock() - entry.at
        current = entry.revision == revision and -_SKEW <= age < self._ttl * SECOND
        return entry.key if current and entry.key.id == key_id else None

    def _seal(self, name: str, raw: bytes) -> bytes:
        return hmac.digest(self._secret, hashlib.sha256(name.encode()).digest() + raw, "sha256")

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        return self._keys.list(tenant)

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent. Raises `NotFound`, also for another tenant's key."""
        revoked = self._keys.revoke(tenant, key_id, at)
        _quietly(self._server, "DEL", f"{self._server.config.prefix}key:{joined(key_id)}")
        return revoked


class PolicyCache:
    """Policy texts by digest. What does not have the digest it is asked by is not given out."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def get(self, digest: str) -> PolicySource | None:
        """None: not here; ask the store."""
        said = _quietly(self._server, "GET", self._name(digest))
        if not isinstance(said, bytes):
            return None
        try:
            body = _body(said)
        except msgspec.MsgspecError:
            return None
        modules = tuple(PolicyModule(path, text) for path, text in body.modules)
        source = PolicySource(modules, body.data, body.name)
        return source if source_digest(source) == digest else None

    def put(self, source: PolicySource) -> None:
        """Keep it for 30 days."""
        body = _encode(_Body([(one.path, one.source) for one in source.modules], dict(source.data), source.name))
        _quietly(self._server, "SET", self._name(source_digest(source)), body, "PX", str(_MODULES_KEPT))

    def _name(self, digest: str) -> str:
        return f"{self._server.config.prefix}policy:{joined(digest)}"


def _quietly(server: RedisServer, *words: str | bytes) -> Any:
    """The answer; None where there is none."""
    try:
        return server.command(*words)
    except Unavailable:
        return None
