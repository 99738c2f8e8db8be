"""Revisions of policies in memory."""

from collections.abc import Sequence
from dataclasses import replace

from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_mcp.core.policy import PolicySource, source_digest
from fulcrum_mcp.ports import StoredPolicies

__all__ = ["MemoryPolicies"]


class MemoryPolicies:
    """`PolicyRepository` that forgets when the process ends."""

    def __init__(self, revision: MemoryRevision | None = None) -> None:
        self._revision = revision or MemoryRevision()
        self._kept: list[StoredPolicies] = []

    def put(self, source: PolicySource, author: str, at: int) -> StoredPolicies:
        """Make it the newest revision; the same digest as the newest makes none."""
        digest = source_digest(source)
        if self._kept and self._kept[-1].digest == digest:
            return self._kept[-1]
        self._kept.append(StoredPolicies(len(self._kept) + 1, digest, author, at, source))
        self._revision.move()
        return self._kept[-1]

    def get(self, number: int | None = None) -> StoredPolicies | None:
        """A revision with its source, the newest without a number."""
        wanted = len(self._kept) if number is None else number
        return self._kept[wanted - 1] if 0 < wanted <= len(self._kept) else None

    def list(self, limit: int = 100) -> Sequence[StoredPolicies]:
        """Newest first, without their sources."""
        return [replace(kept, source=None) for kept in reversed(self._kept)][:limit]
