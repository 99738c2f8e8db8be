"""Who listens on a stream that may stay open for ever: their credentials are looked at again, or it would outlive them.

At once when what is stored has changed, and every few seconds besides, since credentials also expire.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.errors import Unauthenticated, Unavailable
from fulcrum_mcp.ports import Credentials, IdentityVerifier

__all__ = ["Standing"]

_log = structlog.get_logger("fulcrum.mcp")

_EVERY: Final = 5.0
"""Seconds between two looks without news, while somebody listens."""


class Standing:
    """`end` is told of each principal whose credential counts no longer, and why."""

    def __init__(self, identity: IdentityVerifier, end: Callable[[Principal, Reason], object]) -> None:
        self._identity = identity
        self._end = end
        self._listeners: dict[int, tuple[Credentials, Principal]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._again = False

    @contextmanager
    def listening(self, credentials: Credentials, principal: Principal) -> Iterator[None]:
        """While this lasts, `principal` listens on the strength of these credentials."""
        self._number += 1
        number = self._number
        self._listeners[number] = (credentials, principal)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._tick)
        try:
            yield
        finally:
            del self._listeners[number]
            if not self._listeners:
                self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY, self._tick)
        self.look_soon()

    def look_soon(self) -> None:
        """Look at all of them again, from the event loop."""
        self._again = True
        if self._listeners and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while self._again:
            self._again = False
            by_credentials: dict[Credentials, list[Principal]] = {}
            for credentials, principal in self._listeners.values():
                by_credentials.setdefault(credentials, []).append(principal)
            await asyncio.gather(*(self._look_at(*item) for item in by_credentials.items()))

    async def _look_at(self, credentials: Credentials, principals: list[Principal]) -> None:
        try:
            await self._identity.verify(credentials)
        except Unauthenticated:
            why = Reason("", "", "unauthenticated", "the credential of this stream was revoked or has expired")
            for principal in principals:
                self._end(principal, why)
        except Unavailable:
            return  # whoever was known goes on, as with requests; the next look asks again
        except Exception:  # noqa: BLE001 - one that cannot be looked at must not save the others
            _log.exception("credentials of a listener not looked at")
