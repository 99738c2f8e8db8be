"""How the journal reaches its ledger: at once on the event loop if it is quick, else on threads."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from fulcrum_mcp.errors import Unavailable

__all__ = ["BUSY_PAUSE", "Reach"]

BUSY_PATIENCE: Final = 1.0
"""Seconds for which a ledger may say that it is busy."""
BUSY_PAUSE: Final = 0.001
_THREADS: Final = 8

T = TypeVar("T")


class Reach:
    """Made on the loop that waits for the answers."""

    def __init__(self, *, quick: bool, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = None if quick else ThreadPoolExecutor(_THREADS, "fulcrum-ledger")
        self._patience = patience
        self._busy_since: float | None = None

    def ask(self, work: Callable[[], T], answered: Callable[[T | None, Exception | None], None]) -> None:
        """Do `work` and tell its result or its fault, on the loop; at once where the ledger is quick."""
        if self._threads is not None:
            self._threads.submit(work).add_done_callback(lambda done: self._tell(done, answered))
            return
        try:
            result = work()
        except Exception as fault:  # noqa: BLE001 - told
            answered(None, fault)
        else:
            self._busy_since = None
            answered(result, None)

    def _tell(self, done: "Future[Any]", answered: Callable[[Any, Exception | None], None]) -> None:
        fault = done.exception()
        result = None if fault is not None else done.result()
        told = fault if fault is None or isinstance(fault, Exception) else Unavailable(f"the ledger: {fault!r}")
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody who waited with it
            self._loop.call_soon_threadsafe(answered, result, told)

    def may_wait(self, fault: Exception) -> bool:
        """True while a ledger that says it is busy is to be asked again, after `BUSY_PAUSE`."""
        if not isinstance(fault, Unavailable) or not fault.busy:
            self._busy_since = None
            return False
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since < BUSY_PATIENCE:
            return True
        self._busy_since = None
        return False

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` for one call; waits a little while it is busy. Raises `Unavailable`."""
        if self._threads is not None:
            done = self._loop.run_in_executor(self._threads, work)
            try:
                return await asyncio.wait_for(done, self._patience)
            except TimeoutError:
                raise Unavailable("the ledger does not answer; try again", doubtful=True) from None
        deadline = self._loop.time() + BUSY_PATIENCE
        while True:
            try:
                return work()
            except Unavailable as fault:
                if not fault.busy or self._loop.time() > deadline:
                    raise
            await asyncio.sleep(BUSY_PAUSE)

    def close(self) -> None:
        """Wait for nobody. Idempotent."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
