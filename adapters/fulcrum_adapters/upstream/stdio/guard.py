"""Ends the servers when the gateway itself is killed and can end nothing any more.

One small shell per upstream reads the process groups from a pipe. When the gateway dies, however it dies, the pipe
ends: the servers have seen the end of their stdin in the same moment, and the shell sends SIGTERM after two seconds
and SIGKILL after four. It must never hold a pipe of a server, and it reaches only what stays in its server's group.
"""

import asyncio
import contextlib
import os
import subprocess

from fulcrum_adapters.upstream.stdio.spawn import on_exit, spawn

__all__ = ["Guard"]

_SCRIPT = """
trap '' HUP INT TERM
groups=
while read -r sign group; do
  case $sign in
    +) groups="$groups $group" ;;
    -) kept=
       for g in $groups; do [ "$g" = "$group" ] || kept="$kept $g"; done
       groups=$kept ;;
  esac
done
[ -n "$groups" ] || exit 0
sleep 2
for g in $groups; do kill -s TERM -- "-$g" 2>/dev/null; done
sleep 2
for g in $groups; do kill -s KILL -- "-$g" 2>/dev/null; done
"""


class Guard:
    """The watcher over all process groups of one upstream; without `/bin/sh` it watches nothing."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The shell's process id while it lives."""
        return None if self._process is None else self._process.pid

    async def ready(self) -> None:
        """Start the shell when it does not run."""
        async with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            command = ("/bin/sh", "-c", _SCRIPT, "fulcrum-guard")
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            with contextlib.suppress(OSError):
                self._process = spawn(command, environment, None, quiet=True)
                for group in self._groups:
                    self._tell("+", group)

    def add(self, group: int) -> None:
        """Watch a group from now on."""
        self._groups.add(group)
        self._tell("+", group)

    def remove(self, group: int) -> None:
        """Its processes are gone; the number may be used again by others."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell("-", group)

    async def close(self) -> None:
        """End the shell; groups that still live are ended by it first."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        gone = asyncio.Event()
        on_exit(process, gone.set)
        await gone.wait()

    def _tell(self, sign: str, group: int) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(f"{sign} {group}\n".encode())
