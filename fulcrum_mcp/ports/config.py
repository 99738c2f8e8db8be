"""What the control plane keeps and the data plane decides from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.policy import PolicySource
from fulcrum_mcp.core.switch import KillSwitch

__all__ = [
    "BudgetRepository",
    "ConfigRepository",
    "PolicyRepository",
    "StoredConfig",
    "StoredPolicies",
    "SwitchRepository",
]


class BudgetRepository(Protocol):
    """Budgets made over the CLI or the API, *synchronous*; configuration files add theirs in the snapshot."""

    def add(self, budget: Budget) -> None:
        """Raises `Conflict` when the tenant has a budget of that name."""
        ...

    def list(self, tenant: str | None) -> Sequence[Budget]:
        """By name; None: of all tenants, for the snapshot."""
        ...

    def delete(self, tenant: str, budget_id: str) -> None:
        """Raises `NotFound`."""
        ...

    def revision(self) -> int:
        """Grows with every change of keys, budgets, policies or switches by any process that shares the store."""
        ...


class SwitchRepository(Protocol):
    """Kill switches, *synchronous*."""

    def add(self, switch: KillSwitch) -> None:
        """Raises `Conflict` when that target is stopped already."""
        ...

    def list(self, tenant: str) -> Sequence[KillSwitch]:
        """One tenant's (or `EVERYBODY`'s), newest first."""
        ...

    def delete(self, tenant: str, switch_id: str) -> KillSwitch:
        """Raises `NotFound`, also for another tenant's."""
        ...


@dataclass(frozen=True, slots=True)
class StoredPolicies:
    """One revision of the whole set of policies; immutable."""

    number: int
    """1 for the first."""
    digest: str
    """SHA-256 over modules and data, hex (`core.policy.source_digest`)."""
    author: str
    at: int
    """Nanoseconds since the Unix epoch."""
    source: PolicySource | None
    """None in lists."""


class PolicyRepository(Protocol):
    """Revisions of the policies that all gateways of an installation judge by, *synchronous*."""

    def put(self, source: PolicySource, author: str, at: int) -> StoredPolicies:
        """Make it the newest revision; the same digest as the newest makes none."""
        ...

    def get(self, number: int | None = None) -> StoredPolicies | None:
        """A revision with its source, the newest without a number."""
        ...

    def list(self, limit: int = 100) -> Sequence[StoredPolicies]:
        """Newest first, without their sources."""
        ...


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """Everything a snapshot is made of, read in one transaction."""

    revision: int
    budgets: tuple[Budget, ...] = ()
    switches: tuple[KillSwitch, ...] = ()
    policies: StoredPolicies | None = None


class ConfigRepository(Protocol):
    """The configuration as a whole, of all tenants, *synchronous*; for the data plane."""

    def revision(self) -> int:
        """Grows with every change; cheap. Raises `Unavailable`."""
        ...

    def read(self) -> StoredConfig:
        """One moment's state. Raises `Unavailable`."""
        ...
