"""Where an embedded gateway's records stay."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.ports.spool import SpoolPosition

__all__ = ["AuditStore", "StoreBatch", "StoreState"]


@dataclass(slots=True)
class StoreState:
    """What the store holds: where the processor goes on."""

    chains: dict[str, ChainState]
    broken: dict[str, str]
    """chain -> why it is not continued."""
    positions: dict[str, SpoolPosition]
    checkpoints: dict[str, tuple[int, str]]
    """tenant -> (number of the last checkpoint, its hash)."""


@dataclass(slots=True)
class StoreBatch:
    """What one transaction adds."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """(chain, seq, tenant, type, time in us, call, leg, decision, agent, tool, effect, line)."""
    inputs: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(record id, time in us, call inputs)."""
    chains: Mapping[str, ChainState] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, SpoolPosition] = field(default_factory=dict)
    checkpoints: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(tenant, number, line)."""
    faults: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(writer, what is wrong, the bytes if they are a record that was refused)."""


class AuditStore(Protocol):
    """Where records stay, *synchronous*; written by one processor at a time."""

    def load(self) -> StoreState:
        """What it holds. Raises `Unavailable`."""
        ...

    def add(self, batch: StoreBatch) -> None:
        """All of it in one transaction, or `Unavailable` and nothing. Idempotent per (chain, seq)."""
        ...

    def flush(self) -> None:
        """What was added survives power loss when this returns. Raises `Unavailable`."""
        ...

    def erase_inputs(self, before: int) -> int:
        """Erase call inputs older than a time (us); how many."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
