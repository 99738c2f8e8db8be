"""API keys in memory."""

from collections.abc import Sequence
from dataclasses import replace

from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_mcp.errors import Conflict, NotFound
from fulcrum_mcp.ports import ApiKey

__all__ = ["MemoryKeys"]


class MemoryKeys:
    """`KeyRepository` that forgets when the process ends."""

    def __init__(self, revision: MemoryRevision | None = None) -> None:
        self._revision = revision or MemoryRevision()
        self._keys: dict[str, ApiKey] = {}

    def add(self, key: ApiKey) -> None:
        """Raises `Conflict` when the id is taken."""
        if key.id in self._keys:
            raise Conflict(f'key "{key.id}" exists already; make another one.')
        self._keys[key.id] = key
        self._revision.move()

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant."""
        return self._keys.get(key_id)

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        mine = [key for key in self._keys.values() if key.tenant == tenant]
        return sorted(mine, key=lambda key: (key.created_at, key.id), reverse=True)

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent: the first time stays. Raises `NotFound`, also for another tenant's key."""
        key = self._keys.get(key_id)
        if key is None or key.tenant != tenant:
            raise NotFound(f'no key "{key_id}"; list them to see their ids.')
        if key.revoked_at is None:
            key = self._keys[key_id] = replace(key, revoked_at=at)
        self._revision.move()
        return key
