"""A real server as a process of a test: the same port over a restart, paused and killed by pid, never left behind.

Its output goes to a file, since a pipe that nobody reads stops a server. A shell beside it waits for this interpreter
to end, however that happens, and ends the server then.
"""

import contextlib
import itertools
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

__all__ = ["HOST", "Server", "free_port"]

HOST = "127.0.0.1"
_PORTS = range(12_000, 30_000)  # below every system's ephemeral ports: a client must not meet itself on a closed one
_STEP = 0.005
_given = set[int]()
"""Who was given a port may listen on it later."""


def free_port() -> int:
    """A loopback port that nobody listens on, none twice, none that an outgoing connection is given meanwhile."""
    for _ in range(200):
        port = random.SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
            _given.add(port)
            return port
    raise RuntimeError(f"no free port on {HOST} between {_PORTS.start} and {_PORTS.stop}; stop what listens there")


class Server(ABC):
    """One server. Its folder holds its data and its log, which a restart keeps unless asked for an empty one."""

    stop_signal = signal.SIGTERM
    start_within = 60.0

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.log = folder / "log.txt"
        self.data = folder / "data"
        self.paused = False
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client finds it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it in the foreground."""

    @abstractmethod
    def answers(self, seconds: float = 1.0) -> bool:
        """Whether it answers a question of its own protocol within so long, on a new connection."""

    def prepare(self) -> None:
        """Make what it needs before it starts."""
        self.data.mkdir(exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} has not been started"
        return self._process.pid

    @property
    def name(self) -> str:
        return f"{type(self).__name__}:{self.port}"

    @property
    def running(self) -> bool:
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        self._gone()  # by itself: its number may soon be another's, which the guard must not end
        return False

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        if self.running:
            return self
        self.prepare()
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -9 {self._process.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + self.start_within
        while not self.answers():
            if not self.running:
                raise RuntimeError(f"{self.name} ended at its start; {self._said()}")
            if time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.name} did not answer within {self.start_within:.0f} s; {self._said()}")
            time.sleep(_STEP)
        return self

    def stop(self, *, within: float = 30.0) -> None:
        """End it in good order; kill it when it does not end."""
        if self._process is None:
            return
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End it at once, with every process of its own; what it gave the system to write is written."""
        if self._process is None:
            return
        family = self._family()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        self._process.wait(20)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, f"{self.name}: processes that do not end: {alive}"
        self._gone()

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and are even accepted by the system, nothing answers."""
        stopped: set[int] = set()
        for _ in range(50):  # a child may be born while its parent is not yet stopped
            fresh = [each for each in self._family() if each.pid not in stopped]
            if not fresh:
                break
            for each in fresh:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGSTOP)
                stopped.add(each.pid)
        self.paused = True

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self.paused:
            for each in reversed(self._family()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGCONT)
        self.paused = False

    def restart(self, *, empty: bool = False, kill: bool = False) -> Self:
        """Start it anew on the same port: after `stop`, or `kill` if so asked or `empty`; with its data, or without."""
        if kill or empty:
            self.kill()
        else:
            self.stop()
        if empty:
            shutil.rmtree(self.data, ignore_errors=True)
        return self.start()

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _said(self) -> str:
        return f"its log {self.log} ends:\n{self.tail()}"

    def _family(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return list(itertools.chain([first], first.children(recursive=True)))
        return []

    def _gone(self) -> None:
        self.paused = False
        if self._process is not None:
            self._process.wait(20)
        self._process = None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait(20)
            assert guard.stdin is not None
            guard.stdin.close()
