"""Two gateways on one data folder, real stdio and HTTP servers: a kill switch reaches both within a second."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from governed_processes import FULCRUM, META, VERSION, Governed, free_port, until
from stalls import Stalls

from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.composition.local import open_local
from fulcrum_mcp.ports import AuditQuery

pytestmark = [pytest.mark.service, pytest.mark.anyio]

SERVER = Path(__file__).parents[1] / "peers" / "holding_server.py"
OLDER = "2025-11-25"
SECOND = 1.0
CONFIG = """\
[[server]]
name = "pipe"
command = [{python}, {server}, "stdio", {notes}]

[[server]]
name = "web"
url = "http://127.0.0.1:{port}/mcp"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Up(Governed):
    """`fulcrum up` on a folder that another one uses, too."""

    def __init__(self, name: str, folder: Path, more: list[str]) -> None:
        super().__init__(name, folder / f"{name}.log")
        bind = f"127.0.0.1:{free_port()}"
        self.url = f"http://{bind}"
        self.http = aiohttp.ClientSession()
        self._command = [*FULCRUM, "up", "--config", str(folder / "fulcrum.toml"), "--data", str(folder / "data")]
        self._command += ["--anonymous", "dev", "--http", bind, "--grpc", f"127.0.0.1:{free_port()}", *more]

    async def start(self) -> None:
        process = await self.spawn(self._command, pipes=False)

        async def ready() -> bool:
            assert process.returncode is None, self.log.read_text()
            try:
                async with self.http.get(f"{self.url}/readyz") as reply:
                    return reply.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, f"{self.name} is ready")

    async def close(self) -> None:
        await super().close()
        await self.http.close()


@dataclass
class Client:
    """One client of one server, in one era."""

    up: Up
    server: str
    modern: bool
    headers: dict[str, str] = field(default_factory=dict)
    number: int = 0

    async def connect(self) -> None:
        self.headers = {"accept": "application/json, text/event-stream"}
        self.headers["mcp-protocol-version"] = VERSION if self.modern else OLDER
        if self.modern:
            return
        hello = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        reply = await self.post("initialize", hello)
        self.headers["mcp-session-id"] = reply.headers["mcp-session-id"]
        await reply.read()
        (await self.post("notifications/initialized", None)).release()

    async def post(self, method: str, params: dict[str, Any] | None) -> aiohttp.ClientResponse:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        headers = dict(self.headers)
        if params is not None:
            self.number += 1
            message |= {"id": self.number, "params": {**params, "_meta": META} if self.modern else params}
        if self.modern:
            headers |= {"mcp-method": method, "mcp-name": str((params or {}).get("name"))}
        return await self.up.http.post(f"{self.up.url}/servers/{self.server}/mcp", json=message, headers=headers)

    async def call(self, tool: str) -> tuple[str, float]:
        """The answer's text, and when it was here."""
        reply = await self.post("tools/call", {"name": tool, "arguments": {}})
        body = (await reply.read()).decode()
        now = time.monotonic()
        texts = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")] or [body]
        message = json.loads(texts[-1])
        return str(message["result"]["content"][0]["text"]), now


@asynccontextmanager
async def two(folder: Path, *more: str) -> AsyncIterator[tuple[list[Up], Stalls]]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "http", str(folder / "web.notes"), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    written = CONFIG.format(
        python=json.dumps(sys.executable),
        server=json.dumps(str(SERVER)),
        notes=json.dumps(str(folder / "pipe.notes")),
        port=int(await server.stdout.readline()),
    )
    (folder / "fulcrum.toml").write_text(written)
    ups = [Up(name, folder, list(more)) for name in ("a", "b")]
    try:
        for up in ups:
            await up.start()
        with Stalls(lambda: [os.getpid(), *(up.process.pid for up in ups if up.process)], folder) as stalls:
            yield ups, stalls
    finally:
        for up in ups:
            await up.close()
        server.kill()
        await server.wait()


def notes(folder: Path, name: str) -> Counter[str]:
    place = folder / f"{name}.notes"
    lines = place.read_text().splitlines() if place.exists() else []
    return Counter(line.split()[0] if line.startswith("told") else line for line in lines)


def act(folder: Path, kill: str | None) -> float:
    """Throw a kill switch as the command does, or lift every one; when that was done."""
    with open_local(folder / "data", None, must_exist=True) as target:
        if kill is not None:
            target.throw_switch({"target": kill, "reason": "it runs wild"})
        else:
            for switch in target.list_switches(None):
                target.lift_switch(switch["id"], None)
    return time.monotonic()


def outcomes(folder: Path) -> Counter[str]:
    with open_trail(folder / "data") as trail:
        records = [json.loads(record.line) for record in trail.reader.query(AuditQuery(after=0, limit=1000))]
    return Counter(
        record["data"].get("outcome", record["data"].get("effect"))
        for record in records
        if record["type"].startswith("dev.fulcrum.tool_call.")
    )


async def test_switch_reaches_both_gateways_and_ends_what_is_in_flight(tmp_path: Path) -> None:
    async with two(tmp_path, "--policies", "allow_all") as (ups, stalls):
        clients = [Client(up, server, modern) for up in ups for server in ("pipe", "web") for modern in (True, False)]
        for client in clients:
            await client.connect()
        waiting = [asyncio.create_task(client.call(tool)) for client in clients for tool in ("hold", "say")]

        async def under_way() -> bool:
            seen = notes(tmp_path, "pipe") + notes(tmp_path, "web")
            return seen["call modern"] + seen["call older"] == len(waiting)

        await until(under_way, "every call is with its server")
        thrown = await asyncio.to_thread(act, tmp_path, "agent:anonymous")
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*waiting)
        assert {text.partition(" Decision")[0] for text, _ in answers} == {
            "Denied (stopped): agent anonymous is stopped: it runs wild."
        }
        assert stalls.own(thrown, max(at for _, at in answers)) < SECOND
        for client in clients:
            assert (await client.call("echo"))[0].startswith("Denied (stopped)")

        async def heard() -> bool:
            pipe, web = notes(tmp_path, "pipe"), notes(tmp_path, "web")
            return (pipe["told"], web["told"], web["closed"]) == (8, 4, 8)

        await until(heard, "every server knows that nobody waits any more")
        lifted = await asyncio.to_thread(act, tmp_path, None)
        for client in clients:
            text = ""
            while text != "here":
                text, at = await client.call("echo")
                assert stalls.own(lifted, at) < 5 * SECOND, f"it is lifted: {text}"

        async def recorded() -> bool:
            found = await asyncio.to_thread(outcomes, tmp_path)
            return (found["cancelled"], found["ok"]) == (len(waiting), len(clients))

        await until(recorded, "every call has its end")


async def test_published_policies_reach_both_gateways(tmp_path: Path) -> None:
    async with two(tmp_path) as (ups, stalls):
        clients = [Client(up, "web", True) for up in ups]
        for client in clients:
            await client.connect()
            assert (await client.call("echo"))[0] == "here", "without policies everything is allowed"
        text = """package fulcrum.policies.p

import rego.v1

allow := true

deny contains "closed" if input.phase == "call"
"""

        def publish() -> float:
            with open_local(tmp_path / "data", None, must_exist=True) as target:
                assert target.publish_policies("mine", {"p.rego": text})["overruled"] is None
            return time.monotonic()

        at = await asyncio.to_thread(publish)
        for client in clients:
            while (said := await client.call("echo"))[0] == "here":
                assert stalls.own(at, said[1]) < SECOND
            assert "closed" in said[0]
