"""How long a gateway without a spool may write: only while nobody can have taken it for dead.

Others finish the calls of a gateway that was not heard for a minute. One that was cut off, or stopped, and comes back
must not tell their ends again: it writes nothing once it has been silent for most of that minute, until the store has
heard it again; and nothing at all once another has taken over from it.

One with a spool goes on without the store as long as the stream takes what it records, and without the stream as long
as the store hears it. With neither, nobody waits for what it spends before lost books are made: it reserves nothing.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Hearing", "Lease", "lease_clock"]

SECONDS: Final = 45.0
"""Less than the minute, by what a write that was begun may still take."""


def lease_clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Not held until it is renewed for the first time. Read by any thread."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self.ended = False
        """Another gateway has taken over: for good."""

    def renew(self, asked_at: float) -> None:
        """The store has heard the sign of life that was sent at `asked_at`, by `lease_clock`."""
        self._until = asked_at + self._seconds

    def end(self) -> None:
        """Another gateway has taken over."""
        self.ended = True

    def fault(self) -> str | None:
        """Why nothing may be written now; None: it may."""
        if self.ended:
            return "other gateways took this one for dead and finished its calls; it ends, send the call again"
        if self._until is None:
            return "this gateway is not known to the store yet; check Postgres, and send the call again"
        if lease_clock() >= self._until:
            return (
                f"the store has not heard of this gateway for {self._seconds:g} s, and others may take it for dead; "
                "check Postgres, and send the call again"
            )
        return None


class Hearing:
    """Of a writer with a spool: do others hear of what it spends? Read by any thread."""

    def __init__(self, stream_fault: Callable[[], str | None], seconds: float = SECONDS) -> None:
        """`stream_fault`: why the stream takes nothing at the moment."""
        self._stream_fault = stream_fault
        self._seconds = seconds
        self._until: float | None = None

    def heard(self, asked_at: float) -> None:
        """The store has heard the sign of life that was sent at `asked_at`, by `lease_clock`."""
        self._until = asked_at + self._seconds

    def fault(self) -> str | None:
        """Why nothing may be reserved now; None: it may, or was never heard, which others look after."""
        if self._until is None or lease_clock() < self._until:
            return None
        why = self._stream_fault()
        if why is None:
            return None
        return (
            f"Postgres has not heard of this gateway for {self._seconds:g} s and NATS takes no records of it ({why}), "
            "so nobody knows what it spends; check both, and send the call again"
        )
