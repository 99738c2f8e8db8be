"""Starting a child and hearing of its end, the same way on every event loop.

The loops' own subprocess calls are not used: uvloop's hand inheritable descriptors on to the child (a listening
socket would outlive the gateway) and give it a second copy of its own pipes, so their end is never seen.
"""

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

__all__ = ["Descriptor", "Pipe", "on_exit", "spawn"]


class Pipe(asyncio.Protocol):
    """One end of a child's pipe: what comes from it, and its end."""

    def __init__(self, on_lost: Callable[[], None], on_data: Callable[[bytes], None] | None = None) -> None:
        self._on_lost = on_lost
        self._on_data = on_data

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._on_data is not None:
            self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        del exc
        self._on_lost()


class Descriptor:
    """A pipe's end in the form that every loop may take over; `pipe` itself is closed.

    uvloop closes the descriptor and then the object it was given, which would close the same number again: by then it
    may be a file that another thread has just opened.
    """

    def __init__(self, pipe: IO[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._number = os.dup(pipe.fileno())
        self._closed_by_loop = type(loop).__module__.startswith("uvloop")
        pipe.close()

    def fileno(self) -> int:
        """The descriptor's number."""
        return self._number

    def close(self) -> None:
        """Close it, unless the loop has. Idempotent."""
        number, self._number = self._number, -1
        if number >= 0 and not self._closed_by_loop:
            os.close(number)


def spawn(
    command: Sequence[str], environment: Mapping[str, str], directory: str | None, *, quiet: bool = False
) -> "subprocess.Popen[bytes]":
    """Start a child in a session of its own, with pipes (`quiet`: for stdin only). Blocks; raises `OSError`."""
    out = subprocess.DEVNULL if quiet else subprocess.PIPE
    return subprocess.Popen(  # noqa: S603  # the command is the operator's
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        env=dict(environment),
        cwd=directory,
        close_fds=True,
        start_new_session=True,
    )


def on_exit(child: "subprocess.Popen[bytes]", seen: Callable[[], None]) -> None:
    """Call `seen` on the running loop once the child was waited for."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(child.pid)
    except (AttributeError, OSError):
        threading.Thread(target=_wait, args=(child, loop, seen), daemon=True).start()
        return

    def ready() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        child.wait()
        seen()

    loop.add_reader(handle, ready)


def _wait(child: "subprocess.Popen[bytes]", loop: asyncio.AbstractEventLoop, seen: Callable[[], None]) -> None:
    child.wait()
    if not loop.is_closed():
        loop.call_soon_threadsafe(seen)
