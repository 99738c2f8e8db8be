"""The configuration as a whole, in memory."""

from fulcrum_adapters.memory.budgets import MemoryBudgets
from fulcrum_adapters.memory.policies import MemoryPolicies
from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_adapters.memory.switches import MemorySwitches
from fulcrum_mcp.ports import StoredConfig

__all__ = ["MemoryConfig"]


class MemoryConfig:
    """`ConfigRepository` over repositories that share one `MemoryRevision`; makes those it is not given."""

    def __init__(
        self,
        revision: MemoryRevision | None = None,
        *,
        budgets: MemoryBudgets | None = None,
        switches: MemorySwitches | None = None,
        policies: MemoryPolicies | None = None,
    ) -> None:
        self._revision = revision or MemoryRevision()
        self.budgets = budgets or MemoryBudgets(self._revision)
        self.switches = switches or MemorySwitches(self._revision)
        self.policies = policies or MemoryPolicies(self._revision)

    def revision(self) -> int:
        """Grows with every change."""
        return self._revision.value

    def read(self) -> StoredConfig:
        """One moment's state."""
        return StoredConfig(
            revision=self._revision.value,
            budgets=tuple(self.budgets.list(None)),
            switches=tuple(self.switches.everybodys()),
            policies=self.policies.get(),
        )
