"""A server that does not answer is asked again by one caller at a time; the others are told at once."""

import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Breaker"]

PAUSE: Final = 0.25
"""Seconds between two probes."""


class Breaker:
    """Closed until a failure; then one probe each `PAUSE`, until one succeeds. Safe from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failing = False
        self._probing = False
        self._next = 0.0

    def enter(self) -> bool | None:
        """False: go on; True: go on as the probe; None: do not."""
        with self._lock:
            if not self._failing:
                return False
            if self._probing or self._clock() < self._next:
                return None
            self._probing = True
            return True

    def leave(self, *, probe: bool, failed: bool) -> None:
        """How it went, as `enter` let it in."""
        with self._lock:
            if probe:
                self._probing = False
            if failed:
                self._failing = True
                self._next = self._clock() + PAUSE
            elif probe:
                self._failing = False
