"""Verified credentials, for a short time, so that a call does not pay for them again. Failures are never kept."""

import time
from collections.abc import Callable
from hashlib import sha256

from fulcrum_mcp.core.call import Principal

__all__ = ["LONGEST", "PrincipalCache"]

LONGEST = 60.0
"""Seconds. No credential is believed longer without asking again."""


class PrincipalCache:
    """Principals by the SHA-256 of what was presented; never the credential itself."""

    __slots__ = ("_found", "_monotonic", "_most", "generation")

    def __init__(self, *, most: int = 4096, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._found: dict[bytes, tuple[float, Principal]] = {}
        self._monotonic = monotonic
        self._most = most
        self.generation = 0

    def get(self, token: str) -> Principal | None:
        """The principal, if it was verified lately."""
        found = self._found.get(sha256(token.encode("utf-8", "surrogatepass")).digest())
        if found is None or found[0] <= self._monotonic():
            return None
        return found[1]

    def put(self, token: str, principal: Principal, seconds: float, generation: int) -> None:
        """Keep for `seconds`, at most `LONGEST`; not at all when `forget` was called since `generation` was read."""
        if generation != self.generation or seconds <= 0:
            return
        if len(self._found) >= self._most:
            self._found.pop(next(iter(self._found)))
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        self._found[digest] = (self._monotonic() + min(seconds, LONGEST), principal)

    def forget(self) -> None:
        """Ask again for everything: a key was revoked."""
        self._found.clear()
        self.generation += 1
