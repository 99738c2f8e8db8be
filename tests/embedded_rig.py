"""The whole embedded gateway in this process, on a real data folder, so that a test can break its parts one by one.

    async with open_embedded(tmp_path) as gateway:
        assert await gateway.call() == ""

Nothing listens; requests go in through ASGI. The upstream is a real HTTP server that notes every call it sees.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asgi_driver import Asgi, Exchanged
from governed_processes import VERSION, tool_call, until
from kill_checker import Evidence, gather
from peers.marking_server import Marking, MarkingHttp, read_notes
from stalls import Stalls

from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.composition.backing import Processing
from fulcrum_mcp.composition.control import admin_key
from fulcrum_mcp.composition.server import Server, open_server
from fulcrum_mcp.ports import PolicyEngine
from fulcrum_mcp.processor import Processor
from fulcrum_mcp.settings import Settings, load

__all__ = ["ADMIN", "Embedded", "elsewhere", "open_embedded", "processor_of"]

ADMIN = "flcrm_sk_embedded_" + "0123456789abcdef" * 3

CONFIG = """\
[[server]]
name = "marks"
url = "{url}"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000000
period = "infinite"
"""


@dataclass(slots=True)
class Embedded:
    """A gateway that runs. Every call has a text of its own."""

    server: Server
    settings: Settings
    notes: Path
    app: Asgi
    stalls: Stalls
    answered: dict[str, str] = field(default_factory=dict[str, str])
    """text -> `ok` or `denied` (with a record)."""
    refused: list[str] = field(default_factory=list[str])
    """Texts of calls that were denied because a part failed: recorded or not, never forwarded."""
    _number: int = 0

    @property
    def data(self) -> Path:
        return self.settings.data

    @property
    def admin(self) -> str:
        """The operator's key."""
        return ADMIN

    @property
    def forwarded(self) -> int:
        """Calls that the upstream saw."""
        return len(read_notes(self.notes))

    @property
    def blind(self) -> int:
        """Calls forwarded without a decision: 0."""
        return sum(each.counted["forwarded_without_decision"] for each in self.server.plane.hub.exchanges.values())

    async def call(self, tool: str = "mark") -> str:
        """One call: empty when it was answered, else what the model was told."""
        self._number += 1
        text = f"text-{self._number}"
        headers = [(b"mcp-protocol-version", VERSION.encode()), (b"mcp-method", b"tools/call")]
        headers.append((b"mcp-name", tool.encode()))
        document = tool_call(self._number, tool, text)
        reply = await self.post("/servers/marks/mcp", document, headers)
        assert reply.status == 200, reply.body
        result = reply.result
        if not result.get("isError"):
            assert result["content"] == [{"type": "text", "text": text}]
            self.answered[text] = "ok"
            return ""
        decision = result["_meta"]["dev.fulcrum/decision"]
        if decision["reasons"][0]["code"] == "unavailable":
            self.refused.append(text)
        else:
            self.answered[text] = "denied"
        said: str = result["content"][0]["text"]
        return said

    async def post(self, path: str, document: Any, headers: list[tuple[bytes, bytes]]) -> Exchanged:
        lines = [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json"), *headers]
        lines.append((b"accept", b"application/json, text/event-stream"))
        return await self.app.request("POST", path, lines, json.dumps(document).encode())

    @contextmanager
    def judged_by(self, engine: PolicyEngine) -> Iterator[None]:
        """By an engine that was put in behind everybody's back; a look at the folder of policies leaves it there."""
        plane = self.server.plane
        good = plane.holder.current.engine

        def judge(by: PolicyEngine) -> None:
            plane.snapshots._engine = by
            plane.holder.current = replace(plane.holder.current, engine=by)

        judge(engine)
        try:
            yield
        finally:
            judge(good)

    async def get(self, path: str) -> Exchanged:
        """From the REST face, as the operator."""
        return await self.app.request(
            "GET", path, [(b"host", b"127.0.0.1:8080"), (b"authorization", f"Bearer {ADMIN}".encode())]
        )

    async def denied(self, within: float = 6.0) -> str:
        """A call that is denied in time, without stalls, and goes nowhere; what the model was told."""
        before, began = self.forwarded, time.monotonic()
        async with asyncio.timeout(60):
            said = await self.call()
        assert said != "", "the call was forwarded"
        assert self.stalls.own(began, time.monotonic()) < within, said
        assert self.forwarded == before
        return said

    async def serves_again(self, within: float = 30.0) -> None:
        """Calls are answered again, without a restart."""
        said = ""

        async def works() -> bool:
            nonlocal said
            said = await self.call()
            return said == ""

        try:
            await until(works, "calls are answered again", within)
        except AssertionError as late:
            raise AssertionError(f"{late}; still: {said}") from None

    def evidence(self) -> Evidence:
        """What upstream, clients, trail and ledger say; after the end."""
        with open_trail(self.data) as trail:
            assert trail.complete
            lines = list(trail.reader.lines(None))
        return gather(self.data, self.settings.budgets, [self.notes], self.answered, lines, self.refused)


@asynccontextmanager
async def open_embedded(folder: Path, *, policies: str = "allow_all", more: str = "") -> AsyncIterator[Embedded]:
    """Start it; at the end it is closed as on SIGTERM. `more` joins the configuration file."""
    notes = folder / "notes"
    marking = Marking(notes)
    listening = await asyncio.get_running_loop().create_server(lambda: MarkingHttp(marking), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    config = folder / "fulcrum.toml"
    config.write_text(CONFIG.format(url=url) + more)
    overrides = {"data": folder / "data", "policies": policies, "anonymous": "dev"}
    settings = load(config, environ={"FULCRUM_ADMIN_KEY": ADMIN}, overrides=overrides)
    server = await open_server(settings)
    app = Asgi(server)
    try:
        admin_key(server.control, settings)
        for companion in server.companions:
            companion.start()
        for exchange in server.plane.hub.exchanges.values():
            await exchange.catalog.refresh()
        with Stalls(lambda: [os.getpid()], folder) as stalls:
            yield Embedded(server, settings, notes, app, stalls)
    finally:
        await app.close()
        await server.close()
        listening.close()


def processor_of(gateway: Embedded) -> Processor:
    """The one that runs in the gateway's process."""
    (companion,) = gateway.server.companions
    assert isinstance(companion, Processing)
    return companion.processor


def elsewhere(script: str, *arguments: object) -> "subprocess.Popen[str]":
    """A Python script in another process; speak with it over its standard input and output."""
    command = [sys.executable, "-I", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
