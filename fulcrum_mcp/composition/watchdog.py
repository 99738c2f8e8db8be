"""Ends a process whose event loop is kept busy for ever, as by a policy that never ends: that one holds the GIL.

The kernel counts the processor time of this process and sends SIGPROF when none of it was spent on `beat` for too
long; faulthandler, which needs no GIL, writes where every thread is (files, lines and functions; never a value), and
the signal then ends the process. Time in which the process does not run, because it was stopped, suspended or crowded
out, does not count. A loop that waits for ever without working is the supervisor's to notice.
"""

import faulthandler
import signal

__all__ = ["BEAT", "Watchdog"]

BEAT = 0.5
"""Seconds between two signs of life."""


class Watchdog:
    """Armed by `start`, and again by each `beat`."""

    def __init__(self, seconds: float, trace: int) -> None:
        """`seconds` of processor time without a beat; `trace`: a file descriptor for what faulthandler writes."""
        self._seconds = max(seconds, 2 * BEAT)
        self._trace = trace

    def start(self) -> None:
        """Watch from now on. Crashes of native code are written to `trace` too."""
        faulthandler.enable(self._trace)
        faulthandler.register(signal.SIGPROF, self._trace, all_threads=True, chain=True)
        self.beat()

    def beat(self) -> None:
        """The event loop is alive."""
        signal.setitimer(signal.ITIMER_PROF, self._seconds)

    def stop(self) -> None:
        """Watch no more."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.unregister(signal.SIGPROF)
        faulthandler.disable()
