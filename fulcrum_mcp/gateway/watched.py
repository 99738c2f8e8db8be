"""Requests and streams that no ticket stands for: a kill switch, or the end of a key, ends them all the same."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import KillSwitch, SwitchIndex
from fulcrum_mcp.gateway.denial import Denial

__all__ = ["Watched", "Watchlist", "switch_on"]


def switch_on(switches: SwitchIndex, principal: Principal, server: str) -> KillSwitch | None:
    """The switch that stops whatever `principal` says to `server`; empty: to none in particular."""
    if not switches.switches:
        return None
    return switches.stopping(
        {"tenant": principal.tenant, "agent": principal.agent, "key": principal.key, "server": server or None}
    )


class Watched:
    """One of them. `stopped` and `halts` as those of a ticket."""

    __slots__ = ("halts", "principal", "server", "stopped")

    def __init__(self, principal: Principal, server: str) -> None:
        self.principal = principal
        self.server = server
        self.stopped: Denial | None = None
        self.halts: list[Callable[[], object]] = []


class Watchlist:
    """All that are under way at this moment; one set operation at each end."""

    __slots__ = ("_watched",)

    def __init__(self) -> None:
        self._watched: set[Watched] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def enter(self, principal: Principal, server: str) -> Watched:
        """It may go upstream from now on."""
        watched = Watched(principal, server)
        self._watched.add(watched)
        return watched

    @contextmanager
    def halting(self, principal: Principal, server: str) -> Iterator[Watched]:
        """What the current task does, ended early by what stops it. Replace its `halts` to keep it watched."""
        task = asyncio.current_task()
        assert task is not None
        watched = self.enter(principal, server)
        halts = watched.halts
        halts.append(task.cancel)
        try:
            yield watched
        except asyncio.CancelledError:
            if watched.stopped is None or task.uncancel():
                raise
        finally:
            if watched.halts is halts:
                self.leave(watched)

    def leave(self, watched: Watched) -> None:
        """It is over. Idempotent."""
        self._watched.discard(watched)
        watched.halts.clear()

    def stopped_by(self, switches: SwitchIndex) -> list[tuple[Watched, KillSwitch]]:
        """Those that have to end, and why; each once."""
        if not switches.switches:
            return []
        going = [each for each in self._watched if each.stopped is None]
        found = [(each, switch_on(switches, each.principal, each.server)) for each in going]
        return [(each, switch) for each, switch in found if switch is not None]

    def of(self, principal: Principal) -> list[Watched]:
        """Those of this very object that nothing has stopped yet."""
        return [each for each in self._watched if each.principal is principal and each.stopped is None]
