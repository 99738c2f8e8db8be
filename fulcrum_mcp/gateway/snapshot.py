"""The snapshot: the immutable configuration that the data plane decides from. Swapped whole; a call keeps its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fulcrum_mcp.core.budget import Match
from fulcrum_mcp.core.redact import Substitute
from fulcrum_mcp.ports import PolicyEngine

__all__ = ["Limits", "Snapshot", "SnapshotHolder"]

Matcher = Callable[[Mapping[str, str | None]], Sequence[Match]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the data plane, in bytes and seconds."""

    max_input: int = 256 * 1024
    max_body: int = 4 * 1024 * 1024
    deny_as: str = "result"
    inputs: str = "redacted"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision depends on but the call itself; `matcher` finds the budgets of a call."""

    revision: str
    engine: PolicyEngine
    matcher: Matcher
    substitute: Substitute
    """Replaces a policy's pattern in texts, in linear time."""
    limits: Limits = field(default_factory=Limits)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """Labels of each server."""


class SnapshotHolder:
    """Holds the current snapshot. Replacing it is one assignment: nobody sees half of it."""

    __slots__ = ("current",)

    def __init__(self, snapshot: Snapshot) -> None:
        self.current = snapshot
