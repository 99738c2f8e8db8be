"""Compiling a set of policies beside the event loop that will judge by it.

What is known of the policies is found out on a thread, module by module; the native engine, which belongs to the thread
that made it, is made on the event loop, which gets its turn after each module.
"""

import asyncio
import threading
import time
from typing import Final

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.core.policy import PolicySource

__all__ = ["compile_beside"]

_LONGEST: Final = 0.25
"""Seconds that the thread leaves to the event loop at most before the next module."""


class _Turns:
    """Called before each module: half of the time is the event loop's, and nobody reads on for one that has gone."""

    def __init__(self) -> None:
        self._gone = threading.Event()
        self._began: float | None = None
        """The processor time of the reading thread when its last module began."""

    def __call__(self) -> None:
        """Wait as long as the last module took. Raises `_Overtaken`."""
        took = 0.0 if self._began is None else time.thread_time() - self._began
        if self._gone.wait(min(took, _LONGEST)):
            raise _Overtaken
        self._began = time.thread_time()

    def end(self) -> None:
        """From any thread: what is being compiled is not wanted any more."""
        self._gone.set()


class _Overtaken(Exception):
    """Nobody waits for this compilation any more."""


async def compile_beside(source: PolicySource, max_input: int) -> RegoEngine:
    """An engine that is ready on this event loop. Raises `Invalid`. Cancelled, its thread ends at the next module."""
    turns = _Turns()
    try:
        engine = await asyncio.to_thread(RegoEngine, source, max_input=max_input, between=turns)
    finally:
        turns.end()
    await engine.ready()
    return engine
