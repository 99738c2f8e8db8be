"""The upstream: an MCP server as cheap as Python allows, so that what is measured is the gateway.

Speaks 2026-07-28 and the older handshake without sessions, always JSON, one tool `echo`. `GET /posts` answers how many
POSTs it has seen.
"""

import argparse
import asyncio
import contextlib
from typing import Any, cast

import httptools
import msgspec
import uvloop

__all__ = ["Echo", "main"]

_TOOL = {
    "name": "echo",
    "title": "Echo",
    "description": "Gives back the text it gets.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}
_CACHED = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
_SERVER = {"name": "echo", "version": "1"}
_ANSWERS: dict[str, bytes] = {
    "tools/list": msgspec.json.encode({"tools": [_TOOL], **_CACHED}),
    "prompts/list": msgspec.json.encode({"prompts": [], **_CACHED}),
    "resources/list": msgspec.json.encode({"resources": [], **_CACHED}),
    "resources/templates/list": msgspec.json.encode({"resourceTemplates": [], **_CACHED}),
    "ping": b"{}",
    "initialize": msgspec.json.encode(
        {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": _SERVER}
    ),
    "server/discover": msgspec.json.encode(
        {
            "supportedVersions": ["2026-07-28", "2025-11-25"],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": _SERVER},
            **_CACHED,
        }
    ),
}


class _Arguments(msgspec.Struct):
    text: msgspec.Raw = msgspec.Raw(b'""')


class _Params(msgspec.Struct):
    arguments: _Arguments = msgspec.field(default_factory=_Arguments)


class _Message(msgspec.Struct):
    method: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    params: _Params = msgspec.field(default_factory=_Params)


_decode = msgspec.json.Decoder(_Message).decode


def _answer(body: bytes) -> tuple[int, bytes]:
    message = _decode(body)
    identity = bytes(message.id)
    if not identity:
        return 202, b""
    if message.method == "tools/call":
        return 200, b"".join(
            (
                b'{"jsonrpc":"2.0","id":',
                identity,
                b',"result":{"content":[{"type":"text","text":',
                bytes(message.params.arguments.text),
                b'}],"resultType":"complete"}}',
            )
        )
    result = _ANSWERS.get(message.method)
    if result is None:
        return 404, b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"method not found"}}' % identity
    return 200, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identity, result)


class Echo(asyncio.Protocol):
    """One connection; answers in order, at once."""

    posts = 0

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._path = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._parser.get_method() != b"POST":
            counted = self._path == b"/posts"
            status, body = (200, str(Echo.posts).encode()) if counted else (405, b"")
        else:
            Echo.posts += 1
            status, body = _answer(b"".join(self._body))
        self._transport.write(
            b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description=__doc__)
    parser.add_argument("port", type=int)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
