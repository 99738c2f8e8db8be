"""Asking the store for a key: on threads of its own, so many wait at most, and none of them for long.

Keys that somebody makes up are asked for each time. While the store hangs they must neither hold up what else works
beside the loop, nor pile up, nor keep a client waiting for those before it. Whoever asks is not known yet: why the
store fails, with its address, is for the log alone.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey

__all__ = ["KeyLookup"]

_THREADS = 8
_MOST = 2000
_PATIENCE = 12.0
"""Seconds: longer than the store takes to say that it does not answer."""
_SILENT = "the store of keys does not answer (the gateway's log says why); try again in a moment"

_log = structlog.get_logger("fulcrum.identity")


class KeyLookup:
    """`KeyRepository.get`, awaited."""

    def __init__(self, get: Callable[[str], ApiKey | None], *, most: int = _MOST, patience: float = _PATIENCE) -> None:
        self._get = get
        self._most = most
        self._patience = patience
        self._threads = ThreadPoolExecutor(_THREADS, "fulcrum-keys")
        self.waiting = 0
        """Keys that are being asked for now."""
        self.refused = 0
        """Those that were not answered for: too many, or for too long."""
        self._fault: str | None = None
        """Why the store failed at the last look, as the log has it."""

    async def __call__(self, key_id: str) -> ApiKey | None:
        """Raises `Unavailable`."""
        if self.waiting >= self._most:
            self.refused += 1
            raise Unavailable("too many keys are being looked up at once; try again in a moment", busy=True)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                found = await asyncio.get_running_loop().run_in_executor(self._threads, self._get, key_id)
        except TimeoutError:
            self.refused += 1
            raise Unavailable(_SILENT) from None
        except Unavailable as fault:
            self._complain(str(fault))
            raise Unavailable(_SILENT, busy=fault.busy) from fault
        else:
            self._fault = None
            return found
        finally:
            self.waiting -= 1

    def _complain(self, fault: str) -> None:
        """Once, until the store has answered or says something else."""
        if fault != self._fault:
            _log.warning("keys not read", reason=fault)
        self._fault = fault

    def close(self) -> None:
        """Nobody waits any more. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)
