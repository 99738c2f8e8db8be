"""Processes of the rig: started in groups of our own, measured as trees, stopped by their ids."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Tree", "Usage", "cores", "free_port", "python", "started", "until_listening"]


class Usage(NamedTuple):
    """CPU seconds used so far and resident memory now, of a whole tree."""

    cpu: float
    rss: int


class Tree:
    """A process and its descendants."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._root = psutil.Process(process.pid)

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def usage(self) -> Usage:
        cpu, rss = 0.0, 0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system
                rss += process.memory_info().rss
        return Usage(cpu, rss)

    def stop(self) -> None:
        """Ask, wait 5 s, then kill what is left of the tree."""
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = self._all()
            self.process.terminate()
            _, alive = psutil.wait_procs(tree, timeout=5)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


def cores(pin: bool) -> tuple[set[int], set[int]]:
    """The gateway's cores and everybody else's: the first one and the rest, or all and all."""
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if not pin or len(available) < 2:
        return available, available
    first = min(available)
    return {first}, available - {first}


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, on: set[int], environment: Mapping[str, str] | None = None
) -> Generator[Tree]:
    """Run `command` on the cores `on`, its output into `log`, for as long as the block lasts."""
    with log.open("wb") as output, _running_on(on):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    tree = Tree(process)
    try:
        yield tree
    finally:
        tree.stop()


@contextlib.contextmanager
def _running_on(on: set[int]) -> Generator[None]:
    """A child inherits its cores, so that all its threads are on them from the start."""
    if not on or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, on)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until_listening(port: int, tree: Tree, seconds: float) -> None:
    """Return once somebody listens on `port`; RuntimeError when the process ends or time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if tree.process.poll() is not None:
            raise RuntimeError(f"it ended with exit code {tree.process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port} after {seconds:.0f} s")
