"""Questions to the audit trail."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["AuditQuery", "AuditReader", "DecisionRecord", "StoredRecord"]


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What to look for; times in ns, `tool` is a glob over `<server>__<tool>`."""

    tenant: str | None = None
    tool: str | None = None
    effect: str | None = None
    agent: str | None = None
    type: str | None = None
    call: str | None = None
    decision: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 100
    after: int | None = None
    """Only records that arrived after this row, oldest first (for tail); else the newest first."""
    before: int | None = None
    """Only records that arrived before this row (for paging)."""


class StoredRecord(NamedTuple):
    """A record as stored: `line` is its exact bytes."""

    row: int
    line: bytes


class DecisionRecord(NamedTuple):
    """Everything about one decision."""

    decided: bytes
    inputs: bytes | None
    """The policy input with redacted arguments; None when erased or never kept."""
    finished: Sequence[bytes]


class AuditReader(Protocol):
    """Questions to the store, *synchronous*, from any process; sees whole transactions only."""

    def query(self, query: AuditQuery) -> Sequence[StoredRecord]:
        """Raises `Unavailable`."""
        ...

    def decision(self, tenant: str | None, decision_id: str) -> DecisionRecord | None:
        """None also for another tenant's decision."""
        ...

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """Every record and checkpoint in an export's order (`core.trail`), from one moment's state."""
        ...

    def counts(self, tenant: str | None) -> Mapping[str, int]:
        """`records`, `chains`, `checkpoints`, `inputs`, `faults`, and `last`: the newest row."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
