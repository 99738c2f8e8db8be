"""One worker process, seen by its supervisor: from its start to its end, with what it says meanwhile."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from fulcrum_mcp.composition.worker import VARIABLE, passed
from fulcrum_mcp.gateway.seat import Seat

__all__ = ["Given", "Incarnation"]

_MOST_WORDS: Final = 16_384
_KILL_AFTER: Final = 1.0
_WORK: Final = 2
"""Hundredths of a second of processor time between two looks: less is only waiting, for the interpreter's lock too."""


class Given(NamedTuple):
    """What a worker gets. `again`: it takes the place of one that had served."""

    seat: Seat
    http: socket.socket
    relay: socket.socket | None
    folder: Path | None
    again: bool


class Incarnation:
    """`changed` is called whenever it gets further."""

    def __init__(
        self,
        seat: Seat,
        process: asyncio.subprocess.Process,
        trace: BinaryIO,
        writer: asyncio.StreamWriter,
        changed: Callable[["Incarnation"], None],
    ) -> None:
        self.seat = seat
        self.state = "starting"
        self.was_open = self.was_ready = False
        loop = asyncio.get_running_loop()
        self._began = self.beat = loop.time()
        self._process = process
        self._trace = trace
        self._writer = writer
        self._changed = changed
        self._told: Mapping[str, Any] = {}
        self._ticks = 0
        self.last_words = ""
        """Where it was when it was ended or crashed: code places only. Empty for an end of another kind."""
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: Sequence[str], given: Given, changed: Callable[["Incarnation"], None]) -> Self:
        """Start a process. It inherits the sockets and nothing else of ours."""
        ours, theirs = socket.socketpair()
        trace = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        descriptors = [given.http.fileno(), theirs.fileno(), trace.fileno()]
        if given.relay is not None:
            descriptors.append(given.relay.fileno())
        said = passed(
            given.seat,
            http=[given.http.fileno()],
            relay=None if given.relay is None else given.relay.fileno(),
            channel=theirs.fileno(),
            trace=trace.fileno(),
            folder=given.folder,
            again=given.again,
        )
        # Ctrl-C reaches everybody in the terminal: the worker is born deaf to it, and we pass on what we hear.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, VARIABLE: said},
                pass_fds=descriptors,
            )
        except BaseException:
            ours.close()
            trace.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = cls(given.seat, process, trace, writer, changed)
        worker._listening = asyncio.get_running_loop().create_task(worker._listen(reader))
        return worker

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.beat = loop.time()
                if line == b"\n":
                    continue
                self.state = str(json.loads(line)["state"])
                self.was_open = True
                self.was_ready = self.was_ready or self.state == "ready"
                self._changed(self)

    def tell(self, what: Mapping[str, Any]) -> None:
        """Say something, unless it was the last thing said."""
        if what != self._told and self.was_open and not self._writer.is_closing():
            self._told = dict(what)
            self._writer.write(json.dumps(what).encode() + b"\n")

    def heard(self, now: float) -> None:
        """Its silence so far does not count."""
        self.beat = now

    def stopped(self) -> bool:
        """Somebody has stopped it (SIGSTOP, a debugger): its silence means nothing. Never true where /proc is not."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] in ("T", "t")

    def working(self) -> bool:
        """Its loop's thread has used processor time since this was asked last. Never true where /proc is not."""
        pid = self._process.pid
        try:
            fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        before, self._ticks = self._ticks, int(fields[11]) + int(fields[12])
        return self._ticks - before >= _WORK

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def abort(self) -> None:
        """End it from outside: its watchdog's signal writes where it is, and needs nothing of it."""
        self.signal(signal.SIGPROF)
        asyncio.get_running_loop().call_later(_KILL_AFTER, self.signal, signal.SIGKILL)

    def age(self) -> float:
        """Seconds since its start."""
        return asyncio.get_running_loop().time() - self._began

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        code = await self._process.wait()
        self.state = "ended"
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()
        with self._trace as trace:
            trace.seek(0)
            self.last_words = trace.read(_MOST_WORDS).decode(errors="replace").strip()
        return code
