"""The breaker of one upstream: after failures in a row, fail at once for a growing while, then let one call probe.

Pure: the clock comes from the caller.
"""

__all__ = ["Breaker"]


class Breaker:
    """Counts failures to connect; anything that connects closes it."""

    __slots__ = ("_first", "_longest", "_probing", "_threshold", "_until", "_wait", "failures")

    def __init__(self, *, threshold: int = 5, first: float = 0.5, longest: float = 15.0) -> None:
        self._threshold = threshold
        self._first = first
        self._longest = longest
        self._wait = first
        self._until = 0.0
        self._probing = False
        self.failures = 0

    @property
    def open(self) -> bool:
        """True after enough failures in a row."""
        return self.failures >= self._threshold

    def admit(self, now: float) -> float:
        """0 when a call may go (it is the probe if the breaker is open), else the seconds until it pays to retry."""
        if not self.open:
            return 0.0
        if now < self._until:
            return self._until - now
        if self._probing:
            return self._wait
        self._probing = True
        return 0.0

    def failed(self, now: float) -> None:
        """No connection came about."""
        was_probe = self._probing
        self._probing = False
        self.failures += 1
        if self.open and (was_probe or now >= self._until):
            wait = self._wait if self.failures == self._threshold else min(self._wait * 2, self._longest)
            self._wait = wait
            self._until = now + wait

    def succeeded(self) -> None:
        """A connection came about."""
        self._probing = False
        self.failures = 0
        self._wait = self._first
        self._until = 0.0

    def abandoned(self) -> None:
        """The call was given up before it knew: the next one probes."""
        self._probing = False
