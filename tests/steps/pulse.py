"""Time as the event loop lives it: while it is held up, by other cells or by a busy machine, none passes.

So a gateway that holds up its own loop is not found here, but where it has a process of its own
(`test_installation_faults_redis.py`).
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

__all__ = ["Pulse"]

_BEAT: Final = 0.01
_MOST: Final = 0.03
"""Seconds that a beat counts for at most."""


class Pulse:
    """`now` in seconds since it was entered."""

    def __init__(self) -> None:
        self.now = 0.0
        self._task: asyncio.Task[None] | None = None

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            await asyncio.sleep(_BEAT)
            now = clock()
            self.now += min(now - last, _MOST)
            last = now

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
