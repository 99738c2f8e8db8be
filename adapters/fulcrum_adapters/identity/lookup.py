"""Asking the store for a key: on threads of its own, so many wait at most, and none of them for long.

Keys that somebody makes up are asked for each time. While the store hangs they must neither hold up what else works
beside the loop, nor pile up, nor keep a client waiting for those before it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey

__all__ = ["KeyLookup"]

_THREADS = 8
_MOST = 2000
_PATIENCE = 12.0
"""Seconds: longer than the store takes to say that it does not answer."""


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

    async def __call__(self, key_id: str) -> ApiKey | None:
        """Raises `Unavailable`."""
        if self.waiting >= self._most:
            self.refused += 1
            raise Unavailable("too many keys are being looked up at once; try again in a moment", busy=True)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._get, key_id)
        except TimeoutError:
            self.refused += 1
            raise Unavailable("the store of keys does not answer; try again in a moment") from None
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Nobody waits any more. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)
