"""Ends a process whose event loop is kept busy for ever, as by a policy that never ends: that one holds the GIL.

The kernel counts the processor time of the loop's thread and sends SIGPROF when too much of it went by without a
`beat`; faulthandler, which needs no GIL, writes where every thread is (files, lines and functions; never a value), and
the signal then ends the process. Time in which the loop does not run, because the process was stopped, suspended or
crowded out, does not count, nor does the work of other threads. A loop that waits for ever without working is the
supervisor's to notice.
"""

import ctypes
import faulthandler
import signal
import sys
from typing import Final

__all__ = ["BEAT", "Watchdog"]

BEAT = 0.5
"""Seconds between two signs of life."""

_CLOCK_THREAD_CPUTIME_ID: Final = 3
_SIGEV_SIGNAL: Final = 0
_NANOS: Final = 1_000_000_000


class Watchdog:
    """Armed by `start`, in the loop's thread, and again by each `beat`."""

    def __init__(self, seconds: float, trace: int) -> None:
        """`seconds` of processor time without a beat; `trace`: a file descriptor for what faulthandler writes."""
        self._seconds = max(seconds, 2 * BEAT)
        self._trace = trace
        self._timer: _ThreadTimer | None = None

    def start(self) -> None:
        """Watch from now on. Crashes of native code are written to `trace` too."""
        faulthandler.enable(self._trace)
        faulthandler.register(signal.SIGPROF, self._trace, all_threads=True, chain=True)
        self._timer = _ThreadTimer.of_this_thread()
        self.beat()

    def beat(self) -> None:
        """The event loop is alive."""
        self._set(self._seconds)

    def stop(self) -> None:
        """Watch no more."""
        self._set(0.0)
        faulthandler.unregister(signal.SIGPROF)
        faulthandler.disable()

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.set(seconds)
        else:  # the whole process's time: also that of threads which work beside the loop
            signal.setitimer(signal.ITIMER_PROF, seconds)


class _Event(ctypes.Structure):
    """`struct sigevent`, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Spec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("every_seconds", ctypes.c_long),
        ("every_nanos", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanos", ctypes.c_long),
    )


class _ThreadTimer:
    """A POSIX timer over the processor time of one thread (Linux, `timer_create(2)`)."""

    def __init__(self, libc: ctypes.CDLL, timer: ctypes.c_void_p) -> None:
        self._libc = libc
        self._timer = timer

    @classmethod
    def of_this_thread(cls) -> "_ThreadTimer | None":
        """None where the system has none."""
        if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:  # noqa: PLR2004 - the layout below is that of 64 bits
            return None
        libc = ctypes.CDLL(None)
        timer = ctypes.c_void_p()
        event = _Event(None, signal.SIGPROF, _SIGEV_SIGNAL)
        if not hasattr(libc, "timer_create"):
            return None
        if libc.timer_create(_CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(timer)) != 0:
            return None
        return cls(libc, timer)

    def set(self, seconds: float) -> None:
        """Send the signal after so much processor time from now; 0: never."""
        whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
        self._libc.timer_settime(self._timer, 0, ctypes.byref(_Spec(0, 0, whole, nanos)), None)
