"""What one of several worker processes was given by its supervisor, and how the two talk.

The supervisor passes open sockets by their descriptors and says so in one environment variable, which is taken out at
once. They talk in JSON lines: the worker says how far it is and, with an empty line, that it lives; the supervisor
says how its siblings are and when to greet. When the supervisor is gone, the worker ends as if it had been asked to.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fulcrum_mcp.composition.ending import LAST
from fulcrum_mcp.composition.watchdog import BEAT, Watchdog
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.gateway.seat import Seat

__all__ = ["VARIABLE", "Worker", "inherited", "passed"]

VARIABLE: Final = "FULCRUM_WORKER"
_PR_SET_PDEATHSIG: Final = 1


def passed(
    seat: Seat, *, http: Sequence[int], relay: int | None, channel: int, trace: int, folder: Path | None, again: bool
) -> str:
    """The variable's value: descriptors and facts. `again`: it takes the place of one that has ended."""
    facts = {
        "seat": [seat.number, seat.count],
        "http": list(http),
        "relay": relay,
        "channel": channel,
        "trace": trace,
        "folder": None if folder is None else str(folder),
        "again": again,
        "supervisor": os.getpid(),
    }
    return json.dumps(facts)


@dataclass(slots=True)
class Worker:
    """One worker, seen from inside."""

    seat: Seat
    http: Sequence[socket.socket]
    relay: socket.socket | None
    """Where siblings hand requests over; None when there are none."""
    folder: Path | None
    """The sockets of all workers: `<number>.sock`."""
    again: bool
    """It takes the place of one that has ended."""
    siblings: str = ""
    """How all workers are, in words."""
    _channel: socket.socket = field(repr=False, kw_only=True)
    _trace: int = field(repr=False, kw_only=True)
    _writer: asyncio.StreamWriter | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _ends: bool = False
    _greet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def speaks(self) -> bool:
        """It is the one that talks to the person at the terminal."""
        return self.seat.number == 1

    def told(self) -> str:
        """How all workers are, as far as this one was told: for `/readyz`."""
        return f"{self.seat.number} answers; {self.siblings}"

    async def attend(self, watchdog_seconds: float, stop: Callable[[], None]) -> None:
        """Begin to live under the supervisor: signs of life from now on; `stop` is called when it is gone."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._channel)
        watchdog = Watchdog(watchdog_seconds, self._trace)
        watchdog.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._live(watchdog)), loop.create_task(self._listen(reader, stop))]

    async def _live(self, watchdog: Watchdog) -> None:
        try:
            while True:
                watchdog.beat()
                self._say(b"\n")
                await asyncio.sleep(BEAT)
        finally:
            watchdog.stop()

    async def _listen(self, reader: asyncio.StreamReader, stop: Callable[[], None]) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                told: dict[str, Any] = json.loads(line)
                self.siblings = told.get("siblings", self.siblings)
                if told.get("greet"):
                    self._greet.set()
        stop()
        self.end_at_last()

    def end_at_last(self) -> None:
        """From now on it has so much time to end; then it ends as it is, and replay does the rest. Idempotent."""
        if not self._ends:
            self._ends = True
            threading.Thread(target=_end_at_last, name="fulcrum-end", daemon=True).start()

    def _say(self, line: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(line)

    def say(self, state: str) -> None:
        """`open`: everything is there but clients; `ready`: it serves."""
        self._say(json.dumps({"state": state}).encode() + b"\n")

    async def greeting(self) -> None:
        """Wait until all workers serve."""
        await self._greet.wait()

    async def leave(self) -> None:
        """The end: no more signs of life are expected."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()


def inherited(environ: MutableMapping[str, str]) -> Worker | None:
    """The worker that this process is; None: it is none. Takes the variable out. Raises `Invalid`."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        facts = json.loads(text)
        number, count = facts["seat"]
        worker = Worker(
            seat=Seat(number, count),
            http=[_socket(descriptor) for descriptor in facts["http"]],
            relay=None if facts["relay"] is None else _socket(facts["relay"]),
            folder=None if facts["folder"] is None else Path(facts["folder"]),
            again=facts["again"],
            _channel=_socket(facts["channel"]),
            _trace=facts["trace"],
        )
        os.set_inheritable(facts["trace"], False)
        supervisor = facts["supervisor"]
    except (KeyError, OSError, TypeError, ValueError):
        raise Invalid(f"{VARIABLE}: is set by the supervisor of workers only; unset it") from None
    _die_with(supervisor)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches everybody in the terminal; the supervisor passes it on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return worker


def _end_at_last() -> None:
    time.sleep(LAST)
    os._exit(1)


def _socket(descriptor: int) -> socket.socket:
    """A socket of the supervisor's; the processes that a worker starts must not hold it open."""
    inherited_socket = socket.socket(fileno=descriptor)
    inherited_socket.set_inheritable(False)
    inherited_socket.setblocking(False)
    return inherited_socket


def _die_with(supervisor: int) -> None:
    """Linux tells a process of its parent's death, also before and after it listens to the channel."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            raise SystemExit(1)
