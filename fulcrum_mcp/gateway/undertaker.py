"""Finishes the calls of gateways that died without a spool: `outcome_unknown`, at their estimate, exactly once.

Nobody is taken over before all it wrote is stored. What this gateway records for the dead stands in its own chains;
only when the store shows an end of every call is a dead one done with. Should this gateway die before that, another
one takes over from both, after all that this one wrote is stored: then what is open still is open, and the rest is not.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from fulcrum_mcp.core.budget import Commit
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.gateway.records import outcome_unknown_draft
from fulcrum_mcp.ports import OpenCall, StoredPlace, Takeover

__all__ = ["Undertaker"]

PAUSE: Final = 5.0
MOST_CLAIMS: Final = 16
"""In one turn."""

_log = structlog.get_logger("fulcrum.undertaker")


class _Estate:
    """What a dead writer left. `told`: the calls whose end went to the journal; `after`: where to look on."""

    __slots__ = ("after", "told")

    def __init__(self) -> None:
        self.after: StoredPlace | None = None
        self.told: set[tuple[str, str, int]] = set()


class Undertaker:
    """One for each journal. `start` it on the journal's loop."""

    def __init__(
        self, takeover: Takeover, journal: Journal, oldest: Callable[[], Awaitable[float | None]], pause: float = PAUSE
    ) -> None:
        """`oldest`: see `AuditStream`."""
        self._takeover = takeover
        self._journal = journal
        self._oldest = oldest
        self._pause = pause
        self._answered = False
        """The stream answered a turn ago too: what was on its way when it came back has arrived."""
        self._estates: dict[str, _Estate] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except Unavailable as fault:
                _log.info("dead gateways must wait", reason=str(fault))
            except Exception:  # noqa: BLE001 - the gateway goes on, and the next turn tries again
                _log.exception("calls of dead gateways are not finished")
            await asyncio.sleep(self._pause)

    async def turn(self) -> None:
        """Take over from those that died; finish what they left. Raises `Unavailable`."""
        before, self._answered = self._answered, False
        oldest = await self._oldest()
        self._answered = True
        for _ in range(MOST_CLAIMS if before else 0):
            dead = await asyncio.to_thread(self._takeover.claim, self._journal.writer, now_ns(), oldest or 0.0)
            if dead is None:
                break
            _log.info("taking over from a gateway that is gone", writer=dead)
            self._estates[dead] = _Estate()
        for writer, estate in list(self._estates.items()):
            if await self._finish(writer, estate):
                await asyncio.to_thread(self._takeover.done, self._journal.writer, writer)
                del self._estates[writer]
                if estate.told:
                    _log.warning("calls of a gateway that died are finished", writer=writer, calls=len(estate.told))

    async def _finish(self, writer: str, estate: _Estate) -> bool:
        """Tell the ends that nobody has told; True when the store has an end of every call."""
        first: StoredPlace | None = None
        after = estate.after
        while True:
            page = await asyncio.to_thread(self._takeover.unfinished, writer, after)
            for place, call in page.calls:
                if first is None:
                    first = StoredPlace(place.chain, place.seq - 1)
                self._tell(call, estate)
            if page.last is None:
                break
            after = page.last
        estate.after = first or after
        return first is None

    def _tell(self, call: OpenCall, estate: _Estate) -> None:
        key = (call.tenant, call.call, call.leg)
        if key not in estate.told:
            estate.told.add(key)
            decided: dict[str, Any] = msgspec.json.decode(call.data)
            operation = Commit(call.call, call.leg, None, now_ns()) if "reserved" in decided else None
            self._journal.settle(Settlement(operation, partial(outcome_unknown_draft, call.tenant, decided)))

    async def close(self) -> None:
        """What it has told goes with the journal. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
