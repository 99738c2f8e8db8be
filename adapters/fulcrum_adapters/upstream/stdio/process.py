"""One server's process: started, read line by line, written to, and ended with everything it started.

It has a session and process group of its own. Nothing here waits without a bound, and nothing it says or refuses to
read makes memory grow: output is parsed as it comes, input that is not read is refused.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fulcrum_adapters.upstream.stdio.config import StdioConfig
from fulcrum_adapters.upstream.stdio.framing import LineBuffer, LineTooLong, frame
from fulcrum_adapters.upstream.stdio.spawn import Descriptor, Pipe, on_exit, spawn
from fulcrum_adapters.upstream.stdio.words import LastWords
from fulcrum_mcp.errors import UpstreamFailed

__all__ = ["ServerProcess"]

_DRAIN = 0.5
_POLL = 0.02
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class ServerProcess:
    """A running server. `on_line` gets each line of stdout, `on_end` the reason, once, when it can answer no more."""

    def __init__(
        self,
        name: str,
        config: StdioConfig,
        on_line: Callable[[bytes], None],
        on_end: Callable[[UpstreamFailed], None],
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.words = LastWords(config.environment.values(), log)
        self.ended = False
        self.pid = 0
        self._on_line = on_line
        self._on_end = on_end
        self._lines = LineBuffer(config.line_limit)
        self._loop = asyncio.get_running_loop()
        self._child: subprocess.Popen[bytes] | None = None
        self._input: asyncio.WriteTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        self._errors: asyncio.ReadTransport | None = None
        self._exited = asyncio.Event()
        self._open = {_STDOUT, _STDERR}
        self._stopping: asyncio.Task[None] | None = None
        self.wanted = False
        """Its end was our wish."""

    @property
    def stopping(self) -> bool:
        """It is being ended, or has ended."""
        return self._stopping is not None

    async def start(self) -> None:
        """Start it. Raises `UpstreamFailed` (nothing sent). A start that is cancelled leaves no process."""
        spawn = self._loop.create_task(self._spawn())
        try:
            await asyncio.shield(spawn)
        except asyncio.CancelledError:
            spawn.add_done_callback(self._abandoned)
            raise

    def _abandoned(self, spawn: "asyncio.Task[None]") -> None:
        if spawn.cancelled() or spawn.exception() is not None:
            self._end("it could not be started", kill=True)
        else:
            self.stop_soon()

    async def _spawn(self) -> None:
        try:
            child = await self._loop.run_in_executor(
                None, spawn, self.config.command, self.config.variables(), self.config.directory
            )
        except OSError as exc:
            raise self._failed(self._why(exc), sent=False) from exc
        self._child = child
        self.pid = child.pid
        on_exit(child, self._exit_seen)
        try:
            self._errors = await self._reads(child.stderr, _STDERR, self.words.feed)
            self._output = await self._reads(child.stdout, _STDOUT, self._received)
            assert child.stdin is not None
            self._input, _ = await self._loop.connect_write_pipe(
                lambda: Pipe(lambda: self._lost(_STDIN)), Descriptor(child.stdin, self._loop)
            )
        except OSError as exc:
            self._signal(signal.SIGKILL)
            raise self._failed(f"its pipes could not be read: {exc.strerror}; try again later", sent=False) from exc

    def _why(self, exc: OSError) -> str:
        program, directory = self.config.command[0], self.config.directory
        if isinstance(exc, FileNotFoundError):
            if directory is not None and not Path(directory).is_dir():
                return f"its directory {directory!r} does not exist; make it or correct its configuration"
            where = "in PATH" if os.sep not in program else "there"
            return f"cannot start {program!r}: no such program {where}; install it or correct its command"
        return f"cannot start {program!r}: {exc.strerror or type(exc).__name__}; correct its command"

    async def _reads(self, pipe: IO[bytes] | None, fd: int, take: Callable[[bytes], None]) -> asyncio.ReadTransport:
        assert pipe is not None
        transport, _ = await self._loop.connect_read_pipe(
            lambda: Pipe(lambda: self._lost(fd), take), Descriptor(pipe, self._loop)
        )
        return transport

    def _failed(self, what: str, *, sent: bool) -> UpstreamFailed:
        return UpstreamFailed(f'upstream "{self.name}": {what}', sent=sent)

    def write(self, message: bytes) -> None:
        """Send one message. Raises `UpstreamFailed` with `sent` False when the process is gone or does not read."""
        if self.ended or self._input is None or self._input.is_closing():
            raise self._failed(f"its process has ended{self.words.told()}", sent=False)
        waiting = self._input.get_write_buffer_size()
        if waiting > self.config.input_limit:
            raise self._failed(
                f"its process does not read its input ({waiting} bytes wait); try again later or restart it", sent=False
            )
        self._input.write(frame(message))

    def pause(self) -> None:
        """Stop reading its output for now."""
        self._reading(on=False)

    def resume(self) -> None:
        """Read its output again."""
        self._reading(on=True)

    def _reading(self, *, on: bool) -> None:
        pipe = self._output
        if pipe is not None and not pipe.is_closing():
            with contextlib.suppress(RuntimeError):
                if on:
                    pipe.resume_reading()
                else:
                    pipe.pause_reading()

    def _received(self, chunk: bytes) -> None:
        if self.ended:
            return
        try:
            lines = self._lines.feed(chunk)
        except LineTooLong:
            limit = self.config.line_limit
            self._end(f"it wrote a line of more than {limit} bytes; its process was ended and starts anew", kill=True)
            return
        for line in lines:
            if line and not line.isspace():
                self._on_line(line)

    def _lost(self, fd: int) -> None:
        self._open.discard(fd)
        if self._exited.is_set():
            if not self._open:
                self._gone()
        elif fd != _STDERR and self._stopping is None:
            self._loop.call_later(_DRAIN, self._silent, "input" if fd == _STDIN else "output")

    def _exit_seen(self) -> None:
        """What it still wrote before is read first, but not for long."""
        self._exited.set()
        if self._open:
            self._loop.call_later(_DRAIN, self._gone)
        else:
            self._gone()

    def _silent(self, what: str) -> None:
        if not self._exited.is_set():
            self._end(f"it closed its {what}; its process was ended and starts anew", kill=True)

    def _gone(self) -> None:
        rest = self._lines.flush()
        if rest:
            self.words.stray(rest)
        self.words.flush()
        code = None if self._child is None else self._child.returncode
        how = f"exited with code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}"
        self._end(f"its process {how}", kill=False)

    def _end(self, what: str, *, kill: bool) -> None:
        if self.ended:
            return
        self.ended = True
        if not self.wanted:
            what += self.words.told()
        self._begin_stop(0.0 if kill else self.config.stop_grace)
        self._on_end(self._failed(what, sent=True))

    def stop_soon(self) -> "asyncio.Task[None]":
        """Begin to end it, once."""
        if self._stopping is None:
            self.wanted = True
        return self._begin_stop(self.config.stop_grace)

    def _begin_stop(self, grace: float) -> "asyncio.Task[None]":
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(grace))
        return self._stopping

    async def stop(self) -> None:
        """End it and its group: close stdin, wait, SIGTERM, wait, SIGKILL. Idempotent; goes on when cancelled."""
        await asyncio.shield(self.stop_soon())

    async def _stop(self, grace: float) -> None:
        if self._child is None:
            return
        if self._input is not None:
            self._input.close()
        self.resume()
        if not await self._leaves(grace):
            self._signal(signal.SIGTERM)
            if not await self._leaves(grace):
                self._signal(signal.SIGKILL)
                await self._leaves(self.config.stop_grace)
        await self._sweep(grace)
        if self._input is not None and self._input.get_write_buffer_size():
            self._input.abort()
        for pipe in (self._output, self._errors):
            if pipe is not None:
                pipe.close()
        self._end("its process was stopped", kill=False)

    async def _leaves(self, within: float) -> bool:
        """Whether it exits in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._exited.wait()
        return self._exited.is_set()

    async def _sweep(self, grace: float) -> None:
        """End what is left of its group: processes that it started and left behind."""
        if not self._signal(signal.SIGTERM):
            return
        deadline = self._loop.time() + grace
        while self._loop.time() < deadline:
            await asyncio.sleep(_POLL)
            if not self._signal(0):
                return
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Whether anybody was there."""
        if self.pid <= 1:
            return False  # 0 would be our own group
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True
