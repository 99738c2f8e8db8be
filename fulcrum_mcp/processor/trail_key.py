"""The one key that signs a trail: which one it is stands in its checkpoints, and nobody signs with another.

`fulcrum audit verify` is given one public key. A second key in a trail would make all of it worth nothing to whoever
verifies it, and what is signed cannot be taken back.
"""

import time
from collections.abc import Callable

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports import Chains

__all__ = ["TrailKey"]


class TrailKey:
    """Whether this process has the trail's key. The store is asked until something is signed, now and then."""

    def __init__(
        self, chains: Chains, own: str, every: float = 30.0, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """`own`: the id of this process's key; `every`: seconds."""
        self._chains = chains
        self._own = own
        self._every = every
        self._ticks = ticks
        self._ask_at = ticks()
        self._known: str | None = None

    def check(self, *, now: bool = False) -> None:
        """Raises `Invalid` when another key has signed, and `Unavailable`. `now`: ask, however lately it was asked."""
        if self._known is None and (now or self._ticks() >= self._ask_at):
            self._known = self._chains.signer()
            self._ask_at = self._ticks() + self._every
        if self._known not in (None, self._own):
            raise Invalid(
                f"the audit trail is signed with the key {self._known}, and this process has {self._own}; set "
                "FULCRUM_AUDIT_SIGNING_KEY to the key of the processor that signed it (if that had none set: "
                "keys/audit.key in its data folder), and start again"
            )
