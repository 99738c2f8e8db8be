"""An MCP server that keeps calls: `hold` is answered only when somebody says so, `say` begins a stream and then holds.

    python holding_server.py stdio NOTES
    python holding_server.py http NOTES        prints its port

Speaks 2026-07-28 and the handshake era. NOTES gets a line for each call, each `notifications/cancelled` and, over HTTP,
each connection that was closed before its answer: `call ERA`, `told ID`, `closed`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Holding"]

_CACHED = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
_TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("hold", "say", "echo")]
_KNOWN: dict[str, dict[str, Any]] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_CACHED},
    "tools/list": {"tools": _TOOLS, **_CACHED},
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "holding", "version": "1"},
    },
}


class Holding:
    """The server without its transport."""

    def __init__(self, notes: Path) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, line: str) -> None:
        os.write(self._notes, f"{line}\n".encode())

    def take(self, text: bytes, send: Callable[[bytes], None]) -> bool:
        """Deal with one message; True when its answer is still to come."""
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if "id" not in message:
            if method == "notifications/cancelled":
                self.note(f"told {params['requestId']}")
            return False
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if method in _KNOWN:
            answer["result"] = _KNOWN[method]
        elif method == "tools/call":
            modern = "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
            if params["name"] != "echo":
                if params["name"] == "say":
                    said = {"level": "info", "data": "under way"}
                    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": said}
                    send(json.dumps(note).encode())
                self.note(f"call {'modern' if modern else 'older'}")
                return True
            answer["result"] = {"content": [{"type": "text", "text": "here"}]} | (
                {"resultType": "complete"} if modern else {}
            )
        else:
            answer["error"] = {"code": -32601, "message": "method not found"}
        send(json.dumps(answer).encode())
        return False


async def _serve_stdio(holding: Holding) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)

    def send(text: bytes) -> None:
        sys.stdout.buffer.write(text + b"\n")
        sys.stdout.buffer.flush()

    while line := await reader.readline():
        holding.take(line, send)


async def _serve_http(holding: Holding) -> None:
    from aiohttp import web  # noqa: PLC0415 - the stdio server does without it

    async def serve(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        message = json.loads(body)
        if message.get("params", {}).get("name") == "say":
            stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await stream.prepare(request)
            said: list[bytes] = []
            holding.take(body, said.append)
            await stream.write(b"".join(b"data: " + text + b"\n\n" for text in said))
            await _held(holding)
            return stream
        sent: list[bytes] = []
        if holding.take(body, sent.append):
            await _held(holding)
        headers = {"mcp-session-id": "s1"} if message.get("method") == "initialize" else {}
        if not sent:
            return web.Response(status=202)
        return web.Response(body=sent[0], content_type="application/json", headers=headers)

    async def other(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.method == "DELETE" else 405)

    app = web.Application()
    app.router.add_post("/mcp", serve)
    app.router.add_route("*", "/mcp", other)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def _held(holding: Holding) -> None:
    """Until the client closes the connection."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        holding.note("closed")
        raise


if __name__ == "__main__":
    kept = Holding(Path(sys.argv[2]))
    asyncio.run(_serve_stdio(kept) if sys.argv[1] == "stdio" else _serve_http(kept))
