"""`fulcrum up` and `fulcrum wrap` as processes that a test starts, calls, kills and starts again.

A call gives the answer's JSON-RPC message, or None when the process died first.
"""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from servers.process import free_port

__all__ = [
    "META",
    "VERSION",
    "Governed",
    "Up",
    "Wrap",
    "free_port",
    "marking_http",
    "marking_stdio",
    "post",
    "tool_call",
    "until",
]

VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
SERVER = Path(__file__).parent / "peers" / "marking_server.py"
_STALE = 3.0
FULCRUM = [sys.executable, "-m", "fulcrum_mcp.cli"]


def tool_call(number: int, tool: str, text: str) -> dict[str, Any]:
    params = {"name": tool, "arguments": {"text": text}, "_meta": META}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def post(message: dict[str, Any]) -> bytes:
    """The whole HTTP request of a tool call to the server `marks`."""
    body = json.dumps(message).encode()
    head = (
        f"POST /servers/marks/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {VERSION}\r\n"
        f"Mcp-Method: tools/call\r\nMcp-Name: {message['params']['name']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def until(condition: Any, what: str, seconds: float = 60.0) -> None:
    """Look every few milliseconds until something holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:.0f} s: {what}") from None


class Governed:
    """One process. `running` is set while it can be called."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.running = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.environ: dict[str, str] | None = None
        """None: this process's own."""
        self.patience = 60.0
        """Seconds until it must be ready."""
        self._number = 0

    async def spawn(self, command: Sequence[str], *, pipes: bool) -> asyncio.subprocess.Process:
        stdin, stdout = (asyncio.subprocess.PIPE,) * 2 if pipes else (asyncio.subprocess.DEVNULL,) * 2
        with self.log.open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdin=stdin, stdout=stdout, stderr=said, env=self.environ
            )
        return self.process

    async def start(self) -> None:
        raise NotImplementedError

    async def call(self, tool: str, text: str) -> dict[str, Any] | None:
        raise NotImplementedError

    async def end(self, number: signal.Signals) -> int:
        """Send a signal (SIGKILL or SIGTERM) and wait for the end; its exit code."""
        assert self.process is not None
        self.running.clear()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()

    async def close(self) -> None:
        """Whatever became of the test: nothing is left behind."""
        if self.process is not None and self.process.returncode is None:
            await self.end(signal.SIGKILL)


class Up(Governed):
    """`fulcrum up` in front of one HTTP server named `marks`."""

    def __init__(
        self,
        data: Path,
        config: Path,
        log: Path,
        policies: str = "allow_all",
        more: Sequence[str] = (),
        anonymous: str | None = "dev",
    ) -> None:
        super().__init__("up", log)
        self._port = free_port()
        self._command = [
            *FULCRUM, "up", "--config", str(config), "--policies", policies, "--data", str(data),
            "--http", f"127.0.0.1:{self._port}", "--grpc", f"127.0.0.1:{free_port()}", *more,
            *(() if anonymous is None else ("--anonymous", anonymous)),
        ]  # fmt: skip
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        process = await self.spawn(self._command, pipes=False)

        async def ready() -> bool:
            assert process.returncode is None, self.log.read_text()
            answer = await self._send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return answer is not None and answer[0] == 200

        await until(ready, f"{self.name} is ready", self.patience)
        self.running.set()

    async def call(self, tool: str, text: str) -> dict[str, Any] | None:
        self._number += 1
        answer = await self._send(post(tool_call(self._number, tool, text)))
        if answer is None:
            return None
        document: dict[str, Any] = json.loads(answer[1])
        return document

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _send(self, request: bytes) -> tuple[int, bytes] | None:
        """Status and body; None when the connection cannot be made or breaks."""
        now = asyncio.get_running_loop().time()
        while self._idle and now - self._idle[0][0] > _STALE:  # the server closes what is idle for 5 s
            self._idle.pop(0)[2].close()
        try:
            _, reader, writer = self._idle.pop() if self._idle else (now, *await self._connect())
        except OSError:
            return None
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None, head
            body = await reader.readexactly(int(length[1]))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return None
        self._idle.append((asyncio.get_running_loop().time(), reader, writer))
        return int(head[9:12]), body

    async def end(self, number: signal.Signals) -> int:
        code = await super().end(number)
        while self._idle:
            self._idle.pop()[2].close()
        return code


class Wrap(Governed):
    """`fulcrum wrap` around a stdio server, which it calls `marks`."""

    def __init__(self, name: str, data: Path, config: Path, server: Sequence[str], log: Path) -> None:
        super().__init__(name, log)
        self._command = [
            *FULCRUM, "wrap", "--name", "marks", "--policies", "allow_all", "--role", "dev", "--data", str(data),
            "--config", str(config), "--", *server,
        ]  # fmt: skip
        self._waiting: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        process = await self.spawn(self._command, pipes=True)
        self._reading = asyncio.create_task(self._read(process))
        self.running.set()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            message = json.loads(line)
            waiting = self._waiting.pop(message.get("id"), None)
            if waiting is not None:
                waiting.set_result(message)
        self.running.clear()
        for waiting in self._waiting.values():
            waiting.set_result(None)
        self._waiting.clear()

    async def call(self, tool: str, text: str) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.stdin is not None
        if not self.running.is_set():
            return None
        self._number += 1
        waiting: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = waiting
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(tool_call(self._number, tool, text)).encode() + b"\n")
            await self.process.stdin.drain()
        return await waiting

    async def close(self) -> None:
        await super().close()
        if self._reading is not None:
            await self._reading


def marking_stdio(notes: Path) -> list[str]:
    """The command of a stdio server that notes what it sees."""
    return [sys.executable, str(SERVER), "stdio", str(notes)]


@contextlib.asynccontextmanager
async def marking_http(notes: Path) -> AsyncIterator[str]:
    """An HTTP server in a process of its own; its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "http", str(port), str(notes))

    async def listening() -> bool:
        assert process.returncode is None
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    try:
        await until(listening, "the upstream listens")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()
