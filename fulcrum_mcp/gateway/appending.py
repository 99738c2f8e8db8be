"""One durable step of the log for each tick: on a thread of ours, or begun here where it is another process's."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fulcrum_mcp.gateway.tick import Tick
from fulcrum_mcp.ports import AuditLog, DistantLog

__all__ = ["Appending"]

Told = Callable[[Tick, Exception | None], None]


class Appending:
    """Ticks go in on the event loop, and on it `told` hears how each ended."""

    def __init__(self, log: AuditLog, told: Told) -> None:
        """The log is the caller's, to close too."""
        self._log = log
        self._told = told
        self._distant = log if isinstance(log, DistantLog) else None
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Tick | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._append, name="fulcrum-journal", daemon=True)

    @property
    def runs(self) -> bool:
        """Started, and not stopped yet."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def append(self, tick: Tick) -> None:
        """Begin its durable step; no other one may be under way."""
        if self._distant is None:
            self._queue.put(tick)
        else:
            self._distant.begin(tick.block, lambda fault: self._tell(tick, fault))

    async def stop(self, within: float) -> None:
        """Finish what was begun; a log that hangs is left behind after so many seconds."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, within)

    def _append(self) -> None:
        """The thread; idle where the log is distant."""
        while (tick := self._queue.get()) is not None:
            fault: Exception | None = None
            try:
                self._log.write(tick.block)
            except Exception as caught:  # noqa: BLE001 - fail closed: every call of this tick is denied
                fault = caught
            self._tell(tick, fault)

    def _tell(self, tick: Tick, fault: Exception | None) -> None:
        """On any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody who waited with it
            self._loop.call_soon_threadsafe(self._told, tick, fault)
