"""Finishing the calls of gateways that died and have no spool from which they could be replayed."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fulcrum_mcp.ports.audit import OpenCall

__all__ = ["OpenPage", "StoredPlace", "Takeover"]


class StoredPlace(NamedTuple):
    """A record's place in the store, by which its records are gone through."""

    chain: str
    seq: int


class OpenPage(NamedTuple):
    """Calls without an end among some records, and the last of those records; None: there are no more."""

    calls: Sequence[tuple[StoredPlace, OpenCall]]
    last: StoredPlace | None


class Takeover(Protocol):
    """Which writers are dead for good, and what they left open, *synchronous*. All raise `Unavailable`."""

    def claim(self, taker: str, at: int, oldest: float) -> str | None:
        """Take over one writer that ended or died without a spool; None: there is none.

        `oldest`: for how many seconds the oldest parcel in the stream has waited; only a writer whose last sign of
        life is a minute older is taken, so that all it wrote is stored. A living writer alone can take; nobody else
        gets what it took until it is itself taken, and all it wrote stored.
        """
        ...

    def unfinished(self, writer: str, after: StoredPlace | None) -> OpenPage:
        """Calls that it let through and that have no end in the store, in the records after a place (None: all)."""
        ...

    def done(self, taker: str, writer: str) -> None:
        """Every call of it has an end in the store: it is nobody's any more. Idempotent."""
        ...
