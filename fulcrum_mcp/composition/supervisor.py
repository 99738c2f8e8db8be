"""The supervisor of several workers: binds the address once, starts them, replaces those that end, ends them all.

It serves nothing, evaluates nothing and opens no store, so that nothing a worker does can stop it. The listening
sockets stay open here while a worker is replaced: its siblings, or the next one, take what waits.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import structlog

from fulcrum_mcp.composition.ending import GRACE
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.incarnation import Given, Incarnation
from fulcrum_mcp.composition.listen import listen
from fulcrum_mcp.composition.meeting import Meeting
from fulcrum_mcp.composition.watchdog import BEAT
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.settings import Settings

__all__ = ["supervise", "worker_command"]

_log = structlog.get_logger("fulcrum.supervisor")

_MOST_FAILURES: Final = 3
_SETTLED: Final = 10.0
"""Seconds of life after which a death is no sign that the next one will come as soon."""
_FIRST_PAUSE: Final = 0.2
_LAST_PAUSE: Final = 5.0
_SILENT: Final = 3
"""How many times the watchdog's time a worker may be silent without working, before it is ended from outside."""
_SAID_WHY: Final = (2, 3)
"""Exit codes of a command that has said what is wrong, and that nothing but a person can change it."""


def supervise(command: Sequence[str], workers: int, settings: Settings) -> int:
    """Serve with so many processes until SIGINT or SIGTERM; the exit code.

    `command` starts one worker: it must ask `worker.inherited(os.environ)` first, and hand what that gives to
    `open_server` and `Server.run`. Raises `Unavailable`: the address is taken, or workers end before they are ready.
    """
    with ExitStack() as stack:
        http = stack.enter_context(contextlib.closing(listen(settings.http.host, settings.http.port)))
        meeting: Meeting | None = None
        if workers > 1:
            meeting = stack.enter_context(Meeting(open_folder(settings.data), workers))
        supervisor = _Supervisor(command, workers, http, meeting, settings.watchdog_seconds)
        return asyncio.run(supervisor.run())


class _Supervisor:
    def __init__(
        self, command: Sequence[str], workers: int, http: socket.socket, meeting: Meeting | None, patience: float
    ) -> None:
        self._command = tuple(command)
        self._http = http
        self._meeting = meeting
        self._patience = patience
        self._seats = [Seat(number, workers) for number in range(1, workers + 1)]
        self._living: dict[int, Incarnation] = {}
        self._opened = asyncio.Event()
        """The first worker has everything open: the stores and keys that all share are made."""
        self._spawning = asyncio.Lock()
        self._end = asyncio.Event()
        """All are to end."""
        self._greeted = False
        self._codes: list[int] = []
        self._fault: Unavailable | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        watching = loop.create_task(self._watch())
        try:
            await asyncio.gather(*(self._keep(seat) for seat in self._seats))
        finally:
            watching.cancel()
            for worker in self._living.values():
                worker.signal(signal.SIGKILL)
        if self._fault is not None:
            raise self._fault
        return max((code for code in self._codes if code > 0), default=0)

    def _stop(self) -> None:
        """End all: the first time gracefully, the second time at once."""
        if not self._end.is_set():
            self._end.set()
            self._http.close()
            if self._meeting is not None:
                self._meeting.close_sockets()
            self._opened.set()
            asyncio.get_running_loop().call_later(GRACE, self._kill)
        for worker in self._living.values():
            worker.signal(signal.SIGTERM)

    def _kill(self) -> None:
        for worker in self._living.values():
            _log.warning("worker did not end in time: killed", worker=worker.seat.number)
            worker.signal(signal.SIGKILL)

    async def _keep(self, seat: Seat) -> None:
        """Have a worker in this seat until the end."""
        if seat.number > 1:
            await self._opened.wait()
        failures = quick = 0
        again = False
        while not self._end.is_set():
            try:
                worker = await self._start(seat, again=again)
            except OSError as fault:  # no process is to be had now: that must not end those that serve
                if not self._living:
                    what = f"no worker can be started: {fault.strerror}; free memory or processes"
                    raise Unavailable(what) from fault
                _log.error("worker not started", worker=seat.number, reason=str(fault))
                await self._pause(_LAST_PAUSE)
                continue
            code = await worker.ended()
            del self._living[seat.number]
            self._tell()
            if self._end.is_set():
                self._codes.append(code)
                return
            failures = 0 if worker.was_ready else failures + 1
            quick = 0 if worker.age() > _SETTLED else quick + 1
            if self._hopeless(seat, code, failures):
                return
            again = again or worker.was_ready
            pause = min(_FIRST_PAUSE * 2 ** (quick - 2), _LAST_PAUSE) if quick > 1 else 0.0
            words = {"traceback": worker.last_words} if worker.last_words else {}
            _log.warning("worker ended and is replaced", worker=seat.number, end=_end(code), **words)
            await self._pause(pause)

    def _hopeless(self, seat: Seat, code: int, failures: int) -> bool:
        """It will not do better next time, and no other worker serves: then all end, and a person must look."""
        if any(worker.was_ready for worker in self._living.values()):
            return False
        if not self._opened.is_set() and code in _SAID_WHY:
            self._codes.append(code)
        elif failures >= _MOST_FAILURES:
            self._fault = Unavailable(
                f"worker {seat.number} ended {failures} times before it was ready (the last: {_end(code)}); "
                "what it said stands above, correct that and start again"
            )
        else:
            return False
        self._stop()
        return True

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._end.wait(), seconds)

    async def _start(self, seat: Seat, *, again: bool) -> Incarnation:
        relay = None if self._meeting is None else self._meeting.sockets[seat.number]
        folder = None if self._meeting is None else self._meeting.folder
        given = Given(seat, self._http, relay, folder, again)
        async with self._spawning:
            worker = await Incarnation.start(self._command, given, self._changed)
        self._living[seat.number] = worker
        if self._end.is_set():
            worker.signal(signal.SIGTERM)
        return worker

    def _changed(self, _worker: Incarnation) -> None:
        """A worker has got further."""
        if any(worker.was_open for worker in self._living.values()):
            self._opened.set()
        self._tell()

    def _tell(self) -> None:
        """Every worker knows how its siblings are; the first one greets when all serve."""
        ready = [number for number, worker in self._living.items() if worker.was_ready]
        self._greeted = self._greeted or len(ready) == len(self._seats)
        states = ", ".join(
            f"{seat.number} {self._living[seat.number].state if seat.number in self._living else 'ended'}"
            for seat in self._seats
        )
        for worker in self._living.values():
            worker.tell({"siblings": states, "greet": self._greeted})

    async def _watch(self) -> None:
        """End a worker that is silent and does not even work: its own watchdog counts processor time only."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(BEAT)
            now = loop.time()
            crowded = now - last > 2 * BEAT  # we did not run either: the machine was suspended, or is overloaded
            last = now
            for worker in self._living.values():
                if worker.working() or crowded or not worker.was_open or worker.stopped():
                    worker.heard(now)
                elif now - worker.beat > _SILENT * self._patience:
                    _log.warning("worker is silent: ended", worker=worker.seat.number)
                    worker.heard(now)
                    worker.abort()


def _end(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGPROF:
        return "ended by its watchdog: no sign of life for too long"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def worker_command(arguments: Sequence[str]) -> list[str]:
    """This program again with the same arguments; never a module that lies in the current folder."""
    return [sys.executable, "-P", "-m", "fulcrum_mcp.cli", *arguments]
