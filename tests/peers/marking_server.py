"""An MCP server that notes each call in a file before it answers: what it saw outlives every process.

    python marking_server.py http PORT NOTES
    python marking_server.py stdio NOTES

Speaks 2026-07-28. Its tools (`TOOLS`) take `text`; a note is a line `TOOL TEXT`. An answer takes up to 8 ms,
so that some calls are always under way.
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import httptools

__all__ = ["TOOLS", "Marking", "MarkingHttp", "read_notes"]

TOOLS = ("mark", "tight", "scarce", "paced", "halted", "spare")
_CACHED = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_ANSWERS: dict[str, dict[str, Any]] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_CACHED},
    "tools/list": {"tools": [{"name": name, "inputSchema": _SCHEMA} for name in TOOLS], **_CACHED},
    "prompts/list": {"prompts": [], **_CACHED},
    "resources/list": {"resources": [], **_CACHED},
    "resources/templates/list": {"resourceTemplates": [], **_CACHED},
}


class Marking:
    """The server without its transport."""

    def __init__(self, notes: Path) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def answer(self, text: bytes) -> tuple[bytes, float]:
        """The answer to one message (empty to a notification), and the seconds it takes."""
        message = json.loads(text)
        if "id" not in message:
            return b"", 0.0
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        params = message.get("params", {})
        if message["method"] == "tools/call":
            said = params["arguments"]["text"]
            os.write(self._notes, f"{params['name']} {said}\n".encode())
            answer["result"] = {"content": [{"type": "text", "text": said}], "resultType": "complete"}
            return json.dumps(answer).encode(), random.random() * 0.008
        if message["method"] in _ANSWERS:
            answer["result"] = _ANSWERS[message["method"]]
        else:
            answer["error"] = {"code": -32601, "message": "method not found"}
        return json.dumps(answer).encode(), 0.0


def read_notes(notes: Path) -> list[tuple[str, str]]:
    """(tool, text) of each call that was seen, in order."""
    pairs = [line.split(" ", 1) for line in notes.read_text().splitlines()] if notes.exists() else []
    return [(tool, text) for tool, text in pairs]


class MarkingHttp(asyncio.Protocol):
    """One connection. Clients do not send the next request before the answer to the last."""

    def __init__(self, server: Marking) -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            self._write(405, b"")
            return
        body, seconds = self._server.answer(self._body)
        asyncio.get_running_loop().call_later(seconds, self._write, 200 if body else 202, body)

    def _write(self, status: int, body: bytes) -> None:
        assert isinstance(self._transport, asyncio.WriteTransport)
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve_http(port: int, notes: Path) -> None:
    marking = Marking(notes)
    server = await asyncio.get_running_loop().create_server(lambda: MarkingHttp(marking), "127.0.0.1", port)
    await server.serve_forever()


async def _serve_stdio(notes: Path) -> None:
    marking = Marking(notes)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        body, seconds = marking.answer(line)
        if body:
            loop.call_later(seconds, os.write, 1, body + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "http":
        asyncio.run(_serve_http(int(sys.argv[2]), Path(sys.argv[3])))
    else:
        asyncio.run(_serve_stdio(Path(sys.argv[2])))
