"""Kill switches in memory."""

from collections.abc import Sequence

from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Conflict, NotFound

__all__ = ["MemorySwitches"]


class MemorySwitches:
    """`SwitchRepository` that forgets when the process ends."""

    def __init__(self, revision: MemoryRevision | None = None) -> None:
        self._revision = revision or MemoryRevision()
        self._switches: dict[str, KillSwitch] = {}

    def add(self, switch: KillSwitch) -> None:
        """Raises `Conflict` when that target is stopped already."""
        place = (switch.tenant, switch.kind, switch.target)
        taken = any((other.tenant, other.kind, other.target) == place for other in self._switches.values())
        if taken or switch.id in self._switches:
            raise Conflict(f"{switch.kind} {switch.target} is stopped already; list the kill switches to see by whom.")
        self._switches[switch.id] = switch
        self._revision.move()

    def list(self, tenant: str) -> Sequence[KillSwitch]:
        """One tenant's, newest first."""
        mine = [switch for switch in self._switches.values() if switch.tenant == tenant]
        return sorted(mine, key=lambda switch: (switch.at, switch.id), reverse=True)

    def delete(self, tenant: str, switch_id: str) -> KillSwitch:
        """Raises `NotFound`, also for another tenant's."""
        switch = self._switches.get(switch_id)
        if switch is None or switch.tenant != tenant:
            raise NotFound(f'no kill switch "{switch_id}"; list them to see their ids.')
        del self._switches[switch_id]
        self._revision.move()
        return switch

    def everybodys(self) -> Sequence[KillSwitch]:
        """Of all tenants, for the snapshot."""
        return sorted(self._switches.values(), key=lambda switch: switch.id)
