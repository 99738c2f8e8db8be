"""`fulcrum up` before a real server whose streams can be resumed: a client that loses its stream pays once."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from governed_processes import FULCRUM, Governed, free_port, until

from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.composition.control import open_ledger_usage
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import AuditQuery
from fulcrum_mcp.settings import load

pytestmark = [pytest.mark.service, pytest.mark.anyio]

SERVER = Path(__file__).parents[1] / "peers" / "resuming_server.py"
CONFIG = """\
[[server]]
name = "marks"
url = "http://127.0.0.1:{port}/mcp"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000
period = "infinite"
"""
VERSION = "2025-11-25"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Up(Governed):
    """`fulcrum up`, and an HTTP client."""

    def __init__(self, folder: Path, config: Path) -> None:
        super().__init__("up", folder / "up.log")
        bind = f"127.0.0.1:{free_port()}"
        self.url = f"http://{bind}"
        self.http = aiohttp.ClientSession()
        self._command = [*FULCRUM, "up", "--config", str(config), "--data", str(folder / "data"), "--anonymous", "dev"]
        self._command += ["--policies", "allow_all", "--http", bind, "--grpc", f"127.0.0.1:{free_port()}"]

    async def start(self) -> None:
        process = await self.spawn(self._command, pipes=False)

        async def ready() -> bool:
            assert process.returncode is None, self.log.read_text()
            try:
                async with self.http.get(f"{self.url}/readyz") as reply:
                    return reply.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, "fulcrum up is ready")

    async def close(self) -> None:
        await super().close()
        await self.http.close()


class Legacy:
    """A client of the handshake era, by hand: it can lose its streams."""

    def __init__(self, up: Up, face: str) -> None:
        self.http = up.http
        self.url = up.url + face
        self.session: str | None = None
        self.headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": VERSION}

    async def connect(self) -> None:
        hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        reply = await self.post({"id": 0, "method": "initialize", "params": hello})
        self.headers["mcp-session-id"] = reply.headers["mcp-session-id"]
        await reply.read()
        done = await self.post({"method": "notifications/initialized"})
        assert done.status == 202
        done.release()

    async def post(self, message: dict[str, Any]) -> aiohttp.ClientResponse:
        return await self.http.post(self.url, json={"jsonrpc": "2.0", **message}, headers=self.headers)

    async def resume(self, last: str) -> aiohttp.ClientResponse:
        return await self.http.get(self.url, headers={**self.headers, "last-event-id": last})


async def event_of(reply: aiohttp.ClientResponse) -> tuple[str | None, Any]:
    """The next event: its id, and its message (None for a priming one)."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(10):
        while line := (await reply.content.readline()).decode().rstrip("\r\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
    assert fields, "the stream has ended"
    data = fields.get("data")
    return fields.get("id"), json.loads(data) if data else None


async def response_of(reply: aiohttp.ClientResponse) -> Any:
    while True:
        _, message = await event_of(reply)
        if message is not None and "method" not in message:
            return message


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Up]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    config = folder / "fulcrum.toml"
    config.write_text(CONFIG.format(port=int(await server.stdout.readline())))
    up = Up(folder, config)
    try:
        await up.start()
        yield up
    finally:
        await up.close()
        server.kill()
        await server.wait()


def told(folder: Path) -> list[tuple[str, str]]:
    with open_trail(folder / "data") as trail:
        records = [json.loads(record.line) for record in trail.reader.query(AuditQuery(after=0))]
    return [
        (record["type"].rpartition(".")[2], record["data"].get("outcome", record["data"].get("effect")))
        for record in records
        if record["type"].startswith("dev.fulcrum.tool_call.")
    ]


def charged(folder: Path) -> tuple[int, int]:
    usage, close = open_ledger_usage(folder / "data")
    try:
        (found,) = usage(load(folder / "fulcrum.toml", environ={}).budgets, now_ns())
    finally:
        close()
    return found.committed["calls"], found.reserved["calls"]


async def settled(folder: Path) -> None:
    async def done() -> bool:
        return told(folder) == [("decided", "allow"), ("finished", "ok")] and charged(folder) == (1, 0)

    await until(done, "one decision, one end, one charge")


@pytest.mark.parametrize("face", ["/servers/marks/mcp", "/mcp"])
async def test_client_that_loses_its_connection_resumes_and_pays_once(tmp_path: Path, face: str) -> None:
    async with started(tmp_path) as up:
        client = Legacy(up, face)
        await client.connect()
        name = "steps" if face != "/mcp" else "marks__steps"
        params = {"name": name, "arguments": {}, "_meta": {"progressToken": 1}}
        stream = await client.post({"id": 1, "method": "tools/call", "params": params})
        last, _ = await event_of(stream)
        while last is None:
            last, _ = await event_of(stream)
        stream.close()
        (tmp_path / "go").touch()
        resumed = await client.resume(last)
        assert (await response_of(resumed))["result"]["content"][0]["text"] == "all steps"
        resumed.close()
        await settled(tmp_path)
        again = await client.resume(last)
        assert (await response_of(again))["id"] == 1
        again.close()
        await settled(tmp_path)


@pytest.mark.parametrize("face", ["/servers/marks/mcp", "/mcp"])
async def test_client_of_a_server_that_wants_to_be_polled_pays_once(tmp_path: Path, face: str) -> None:
    async with started(tmp_path) as up:
        client = Legacy(up, face)
        await client.connect()
        name = "polled" if face != "/mcp" else "marks__polled"
        stream = await client.post({"id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}})
        last, message = await event_of(stream)
        assert last is not None
        assert message is None
        assert b"polled" not in await stream.read()
        (tmp_path / "go").touch()
        resumed = await client.resume(last)
        assert (await response_of(resumed))["result"]["content"][0]["text"] == "polled"
        resumed.close()
        await settled(tmp_path)
