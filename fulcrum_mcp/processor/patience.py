"""How long to wait for a part that does not answer, and how often to say so."""

import asyncio

import structlog

from fulcrum_mcp.errors import FulcrumError

__all__ = ["Patience", "waited"]

_log = structlog.get_logger("fulcrum.processor")

_FIRST = 0.1


class Patience:
    """Waits that double, up to the longest."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._wait = min(_FIRST, longest)

    def next(self) -> float:
        """Seconds to wait now."""
        wait = self._wait
        self._wait = min(wait * 2, self._longest)
        return wait

    def reset(self) -> None:
        """It has answered."""
        self._wait = min(_FIRST, self._longest)

    def told(self, exc: Exception, event: str, before: str | None) -> str:
        """What is wrong; said to the log when it is not what was said before, with the traceback if it is a bug."""
        reason = str(exc) if isinstance(exc, FulcrumError) else f"{type(exc).__name__}, see the log"
        if reason != before:
            if isinstance(exc, FulcrumError):
                _log.warning(event, reason=reason)
            else:
                _log.error(event, reason=reason, exc_info=exc)
        return reason


async def waited(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until it is time to stop: then True."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return stopping.is_set()
    return True
