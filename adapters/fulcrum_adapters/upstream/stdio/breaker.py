"""Keeps a crash loop from burning CPU: the first restart is immediate, each further one waits twice as long."""

__all__ = ["Breaker"]

_FIRST_PAUSE = 0.5
_MAX_DOUBLINGS = 16


class Breaker:
    """Counts crashes in a row of one kind of process. Times are monotonic seconds."""

    __slots__ = ("_healthy_after", "_max_pause", "failures", "reason", "retry_at")

    def __init__(self, max_pause: float, healthy_after: float) -> None:
        self._max_pause = max_pause
        self._healthy_after = healthy_after
        self.failures = 0
        self.retry_at = 0.0
        self.reason = ""

    def failed(self, now: float, lived: float, reason: str) -> None:
        """Note a crash, or a start that failed (lived 0)."""
        self.failures = 1 if lived >= self._healthy_after else self.failures + 1
        self.reason = reason
        pause = 0.0
        if self.failures > 1:
            pause = min(_FIRST_PAUSE * 2 ** min(self.failures - 2, _MAX_DOUBLINGS), self._max_pause)
        self.retry_at = now + pause

    def waits(self, now: float) -> float:
        """Seconds until the next start is allowed; 0 means now."""
        return max(0.0, self.retry_at - now)
