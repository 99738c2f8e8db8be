"""How long a busy machine kept processes waiting: what a promise in seconds does not count, and only that.

The kernel counts for every thread how long it could have run and was given no processor
(`/proc/PID/task/TID/schedstat`, the second figure; "Scheduler Statistics" of the kernel's documentation). A thread here
looks at the processes that a test names, and of each beat counts what the longest of theirs has waited, since a call is
in one thread at a time; and it writes and syncs a byte: what takes longer than a quiet disk needs is a stall too. A
process that sleeps, waits for an answer or computes is not excused. Where the kernel does not say, nothing is.
"""

import asyncio
import bisect
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Stalls"]

_BEAT: Final = 0.05
_QUIET: Final = 0.02
"""Seconds that a quiet disk may take."""


class Stalls:
    """Entered for as long as something is timed. `pids` is asked again at every beat; `folder` is on the disk."""

    def __init__(self, pids: Callable[[], Iterable[int]], folder: Path) -> None:
        self._pids = pids
        self._folder = folder
        self._known: dict[tuple[int, int], int] = {}
        self._waited = 0
        self._held_up = 0.0
        self._syncing_since: float | None = None
        self._times: list[float] = []
        self._totals: list[float] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)

    def between(self, began: float, ended: float) -> float:
        """Seconds of stalls between two moments of `time.monotonic`; a beat more at each end."""
        self._look()
        with self._lock:
            first = max(bisect.bisect_right(self._times, began) - 1, 0)
            last = min(bisect.bisect_left(self._times, ended), len(self._times) - 1)
            return self._totals[last] - self._totals[first]

    def own(self, began: float, ended: float) -> float:
        """Seconds between two moments without the stalls."""
        return max(ended - began - self.between(began, ended), 0.0)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float) -> float:
        """Wait until something holds; fails unless it does within so many seconds without stalls. How many it took."""
        began = time.monotonic()
        while not await condition():
            now = time.monotonic()
            if now - began > seconds:
                left = self.own(began, now)
                assert left <= seconds, f"not within {seconds:g} s, and {now - began - left:.2f} s of stalls: {what}"
            await asyncio.sleep(0.005)
        return self.own(began, time.monotonic())

    def __enter__(self) -> Self:
        self._look(first=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(20)

    def _run(self) -> None:
        us = threading.get_native_id()
        with (self._folder / f"stalls-{us}").open("wb", buffering=0) as file:
            while not self._over.wait(_BEAT):
                self._syncing_since = began = time.monotonic()
                file.write(b"x")
                os.fdatasync(file.fileno())
                with self._lock:
                    self._held_up += max(time.monotonic() - began - _QUIET, 0.0)
                    self._syncing_since = None
                self._look()

    def _look(self, *, first: bool = False) -> None:
        with self._lock:
            ours, longest = self._thread.native_id, 0
            for pid in self._pids():
                for tid, waited in _waited(pid):
                    if tid == ours:
                        continue
                    before = self._known.get((pid, tid), waited if first else 0)
                    longest = max(longest, waited - before)
                    self._known[pid, tid] = waited
            self._waited += longest
            now, since = time.monotonic(), self._syncing_since
            syncing = 0.0 if since is None else max(now - since - _QUIET, 0.0)
            self._times.append(now)
            self._totals.append(self._waited / 1e9 + self._held_up + syncing)


def _waited(pid: int) -> Iterable[tuple[int, int]]:
    """Of each thread of a process, how long it has waited for a processor, ns."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield int(thread.name), int((thread / "schedstat").read_text().split()[1])
