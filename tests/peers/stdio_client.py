"""How tests speak to a `StdioUpstream`: a client of one era with a principal of its own."""

import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import psutil

from fulcrum_adapters.upstream.stdio import StdioConfig, StdioUpstream
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.ports import UpstreamReply, UpstreamRequest

SCRIPT = Path(__file__).with_name("scripted_stdio.py")
MODERN = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


def principal(agent: str = "agent") -> Principal:
    return Principal("default", agent, f"key-{agent}")


def config(environment: Mapping[str, str] | None = None, **options: Any) -> StdioConfig:
    command = (sys.executable, "-I", "-S", str(SCRIPT))
    return StdioConfig(command, environment or {}, **options)


@contextlib.asynccontextmanager
async def upstream(settings: StdioConfig | None = None, **options: Any) -> AsyncGenerator[StdioUpstream]:
    """An upstream whose processes are proved to be gone when it was closed."""
    made = StdioUpstream("files", settings or config(**options))
    pids: set[int] = set()
    try:
        yield made
    finally:
        pids.update(made.pids)
        guard = made._table._guard.pid
        pids.update(() if guard is None else (guard,))
        await made.close()
        assert made.pids == []
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []


class Client:
    """Sends messages under one principal; `session` is set by `initialize`."""

    def __init__(self, to: StdioUpstream, version: str = MODERN, agent: str = "agent") -> None:
        self.to = to
        self.version = version
        self.principal = principal(agent)
        self.session: str | None = None
        self.last = 0

    def request(self, verb: str, document: Any = None, *, resume: str | None = None) -> UpstreamRequest:
        headers = [(b"mcp-protocol-version", self.version.encode())]
        if self.session is not None:
            headers.append((b"mcp-session-id", self.session.encode()))
        if resume is not None:
            headers.append((b"last-event-id", resume.encode()))
        message = b"" if document is None else json.dumps(document).encode()
        return UpstreamRequest(verb, headers, message, document, self.principal)

    async def post(self, method: str, params: dict[str, Any], number: Any = None) -> UpstreamReply:
        self.last += 1
        document = {"jsonrpc": "2.0", "id": self.last if number is None else number, "method": method, "params": params}
        return await self.to.send(self.request("POST", document))

    async def initialize(self) -> UpstreamReply:
        info = {"protocolVersion": self.version, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        reply = await self.post("initialize", info)
        self.session = reply.headers.get("mcp-session-id")
        return reply

    async def notify(self, method: str, params: dict[str, Any]) -> UpstreamReply:
        return await self.to.send(self.request("POST", {"jsonrpc": "2.0", "method": method, "params": params}))

    async def call(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        number: Any = None,
        meta: dict[str, Any] | None = None,
    ) -> UpstreamReply:
        extra = {**(META if self.version >= MODERN else {}), **(meta or {})}
        params = {"name": name, "arguments": arguments or {}, **({"_meta": extra} if extra else {})}
        return await self.post("tools/call", params, number)

    async def result(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """The one text of a tool's answer, parsed."""
        messages = await read(await self.call(name, arguments))
        return json.loads(messages[-1]["result"]["content"][0]["text"])


async def read(reply: UpstreamReply) -> list[Any]:
    """All messages of an answer."""
    if not reply.streams:
        body = await reply.read()
        return [json.loads(body)] if body else []
    return [json.loads(event.data) async for event in reply.events() if event.data]
