"""`fulcrum up --workers N` as a process that a test starts: which worker answers, and which process each of them is."""

import asyncio
import contextlib
import json
import re
import signal
from pathlib import Path
from typing import Any, Self

import psutil
from governed_processes import Up, post, tool_call, until
from peers.marking_server import Marking, MarkingHttp

__all__ = ["CONFIG", "Holding", "Line", "Workers"]

CONFIG = '[[server]]\nname = "marks"\nurl = "{url}"\n'
_READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Line:
    """One connection to one worker, kept open: it answers all that is sent over it."""

    def __init__(self, worker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.worker = worker
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """A new connection, and who took it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = cls(0, reader, writer)
        document = await line.send(_READY)
        if document is None:
            line.close()
            raise ConnectionResetError("the worker ended")
        line.worker = int(document["parts"]["workers"]["detail"].split()[0])
        return line

    async def send(self, request: bytes) -> Any:
        """The answer's document; None when the connection breaks first."""
        try:
            self._writer.write(request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None, head
            return json.loads(await self._reader.readexactly(int(length[1])))
        except (OSError, asyncio.IncompleteReadError):
            return None

    async def call(self, text: str, **arguments: Any) -> Any:
        """A call of the tool `mark`."""
        message = tool_call(1, "mark", text)
        message["params"]["arguments"] |= arguments
        return await self.send(post(message))

    def close(self) -> None:
        """Hang up."""
        if not self._writer.is_closing():
            self._writer.close()


class Workers(Up):
    """`fulcrum up --workers N` in front of one HTTP server named `marks`."""

    def __init__(self, folder: Path, url: str, workers: int = 2, policies: str = "allow_all") -> None:
        config = folder / "fulcrum.toml"
        if not config.exists():
            config.write_text(CONFIG.format(url=url))
        super().__init__(folder / "data", config, folder / "log", policies, ["--workers", str(workers)])
        self.workers = workers
        self._lines: list[Line] = []
        self.data = folder / "data"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        await super().start()
        await self.all_ready()

    async def all_ready(self) -> None:
        """Wait until every worker serves."""
        wanted = ", ".join(f"{number} ready" for number in range(1, self.workers + 1))

        async def ready() -> bool:
            answer = await self._send(_READY)
            return answer is not None and wanted in json.loads(answer[1])["parts"]["workers"]["detail"]

        await until(ready, f"all workers are ready: {self.log.read_text()}")

    async def replaced(self, worker: int, before: int) -> None:
        """Wait until another process is this worker, and every worker serves: the supervisor may not know yet."""

        async def other() -> bool:
            return self.pids().get(worker, before) != before

        await until(other, f"worker {worker} is replaced: {self.log.read_text()}")
        await self.all_ready()

    async def line(self, worker: int | None = None) -> Line:
        """A connection to this worker, or to any."""
        others: list[Line] = []
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        line = await Line.open(self._port)
                    except ConnectionResetError:
                        continue
                    self._lines.append(line)
                    if worker is None or line.worker == worker:
                        return line
                    others.append(line)
        finally:
            for other in others:
                other.close()

    def pids(self) -> dict[int, int]:
        """The process of each worker."""
        assert self.process is not None
        found: dict[int, int] = {}
        for child in psutil.Process(self.process.pid).children():
            variable = None
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                variable = child.environ().get("FULCRUM_WORKER")
            if variable is not None:
                found[json.loads(variable)["seat"][0]] = child.pid
        return found

    def said(self) -> list[dict[str, Any]]:
        """The structured lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    async def close(self) -> None:
        """Nothing is left behind, whatever became of the test."""
        family: list[psutil.Process] = []
        if self.process is not None and self.process.returncode is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
        await super().close()
        for line in self._lines:
            line.close()
        for process in family:
            if process.is_running():
                process.send_signal(signal.SIGKILL)


class _Connection(MarkingHttp):
    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Holding(Marking):
    """Answers a call whose text begins with `hold SECONDS` so much later."""

    def __init__(self, notes: Path) -> None:
        super().__init__(notes)
        self.port = 0
        self._connections: list[_Connection] = []

    def _connection(self) -> "_Connection":
        self._connections.append(_Connection(self))
        return self._connections[-1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def answer(self, text: bytes) -> tuple[bytes, float]:
        body, seconds = super().answer(text)
        said = json.loads(text).get("params", {}).get("arguments", {}).get("text", "")
        hold = re.match(r"hold (\d+(?:\.\d+)?)", said)
        return body, seconds if hold is None else float(hold[1])
