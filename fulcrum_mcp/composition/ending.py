"""How long a gateway may take to end: a span for each part, all of them together less than a supervisor waits.

A part that hangs is left behind, and named, so that those after it still end. What it left open a replay finishes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal

import structlog

__all__ = ["GRACE", "LAST", "SPANS", "Ending", "Stage", "all_of"]

Stage = Literal[
    "requests", "gRPC", "telemetry", "following", "upstreams", "journal", "stores", "companions", "control", "backing"
]

SPANS: Final[dict[Stage, float]] = {
    "requests": 5.5,  # the server itself gives them 5
    "gRPC": 0.5,
    "telemetry": 2.5,
    "following": 0.5,
    "upstreams": 3.5,
    "journal": 5.5,
    "stores": 0.5,
    "companions": 6.5,
    "control": 0.5,
    "backing": 0.5,
}
"""Seconds."""
LAST: Final = 28.0
"""Seconds after which a worker that still has not ended is ended as it is, from a thread that nothing holds up."""
GRACE: Final = 30.0
"""Seconds that a supervisor waits for its workers before it kills them."""
_LEAVING: Final = 0.05
"""Seconds for what was given up to clean up behind itself."""

_log = structlog.get_logger("fulcrum.ending")


class Ending:
    """One for each process that ends: stage after stage."""

    def __init__(self) -> None:
        self.late: list[Stage] = []
        """What was left behind."""
        self._faults: list[BaseException] = []

    async def stage(self, name: Stage, end: Callable[[], Awaitable[object]]) -> None:
        """Let one part end, within its span. What it raises is raised by `finish`."""
        span = SPANS[name]
        task = asyncio.create_task(_awaited(end))
        done, _ = await asyncio.wait([task], timeout=span)
        if not done:
            self.late.append(name)
            _log.error("a part did not end in time and is left behind", part=name, seconds=span)
            task.cancel()
            await asyncio.wait([task], timeout=_LEAVING)
        elif not task.cancelled() and (fault := task.exception()) is not None:
            self._faults.append(fault)

    def finish(self) -> None:
        """Raises what the first of the parts that failed has raised."""
        if self._faults:
            raise self._faults[0]


async def _awaited(end: Callable[[], Awaitable[object]]) -> None:
    await end()


async def all_of(parts: Iterable[Awaitable[object]]) -> None:
    """All at once; raises what the first of those that failed has raised."""
    for outcome in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
