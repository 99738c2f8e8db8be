"""The snapshot: the immutable configuration that the data plane decides from. Swapped whole; a call keeps its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fulcrum_mcp.core.budget import Match
from fulcrum_mcp.core.redact import Substitute
from fulcrum_mcp.core.switch import SwitchIndex
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
    switches: SwitchIndex = field(default_factory=SwitchIndex)
    """What stops calls before any policy is asked."""
    config_revision: int = 0
    """The revision of the stored configuration that this was made of; it may have kill switches that came later."""


class SnapshotHolder:
    """Holds the current snapshot. Replacing it is one assignment: nobody sees half of it."""

    __slots__ = ("current", "on_swap")

    def __init__(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        self.on_swap: list[Callable[[Snapshot], None]] = []
        """Told at once of the new snapshot, on the event loop, before anything else can run there."""

    def swap(self, snapshot: Snapshot) -> None:
        """Every call that begins from now on is judged by `snapshot`."""
        self.current = snapshot
        for told in self.on_swap:
            told(snapshot)
