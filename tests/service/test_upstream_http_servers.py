"""HTTP upstreams against servers we did not write: uvicorn with Starlette, and the SDK's MCP server in both eras."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from wire_server import http_upstream, post

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import UpstreamReply, UpstreamRequest

pytestmark = [pytest.mark.anyio, pytest.mark.service]

PEER = Path(__file__).parent.parent / "peers" / "http_peers.py"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "progressToken": "t",
}


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["pool", "aiohttp"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="session")
def origin() -> Iterator[str]:
    with subprocess.Popen([sys.executable, str(PEER)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
            process.wait(10)


async def status_of(reply: UpstreamReply) -> int:
    await reply.read()
    return reply.status


async def messages(reply: UpstreamReply) -> list[Any]:
    if not reply.streams:
        return [json.loads(await reply.read())]
    return [json.loads(event.data) async for event in reply.events() if event.data and not event.comment]


@pytest.mark.parametrize("path", ["echo", "chunked", "packed"])
@pytest.mark.parametrize("size", [0, 1, 1_000, 3_000_000])
async def test_body_comes_back_whole(origin: str, client: Any, path: str, size: int) -> None:
    body = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
    async with http_upstream(0, client, url=f"{origin}/{path}") as upstream:
        for _ in range(2):
            with anyio.fail_after(20):
                assert await (await upstream.send(post(body))).read() == body


async def test_hundred_calls_at_once_get_their_own_answers(origin: str, client: Any) -> None:
    async with http_upstream(0, client, url=f"{origin}/echo", max_connections=8) as upstream:

        async def call(n: int) -> None:
            body = b'{"n": %d}' % n
            assert await (await upstream.send(post(body))).read() == body

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for n in range(100):
                    tasks.start_soon(call, n)


async def test_events_come_whole(origin: str, client: Any) -> None:
    async with http_upstream(0, client, url=f"{origin}/events") as upstream:
        with anyio.fail_after(20):
            events = [event async for event in (await upstream.send(post())).events()]
    assert [event.id for event in events if not event.comment] == [str(n) for n in range(20)]
    assert sum(event.comment for event in events) == 20


async def test_handler_that_dies_within_its_stream_is_a_failure(origin: str, client: Any) -> None:
    async with http_upstream(0, client, url=f"{origin}/dying") as upstream:
        events = (await upstream.send(post())).events()
        with anyio.fail_after(20):
            assert (await anext(events)).data == b"{}"
            with pytest.raises(UpstreamFailed, match="before the end of its answer"):
                await anext(events)


async def test_redirect_is_refused_and_no_content_is_empty(origin: str, client: Any) -> None:
    async with http_upstream(0, client, url=f"{origin}/moved") as upstream:
        with pytest.raises(UpstreamFailed, match=r"redirects \(307\) to /mcp"):
            await upstream.send(post())
    async with http_upstream(0, client, url=f"{origin}/empty") as upstream:
        reply = await upstream.send(post())
        assert (reply.status, await reply.read()) == (204, b"")


def modern(method: str, params: dict[str, Any], *name: tuple[bytes, bytes]) -> UpstreamRequest:
    document = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": META}}
    headers = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", method.encode()), *name]
    return UpstreamRequest("POST", headers, json.dumps(document).encode(), document)


async def test_modern_server_answers_and_reports_progress(origin: str, client: Any) -> None:
    async with http_upstream(0, client, url=f"{origin}/mcp") as upstream:
        with anyio.fail_after(20):
            [discovered] = await messages(await upstream.send(modern("server/discover", {})))
            call = {"name": "count", "arguments": {"steps": 3}}
            counted = await messages(await upstream.send(modern("tools/call", call, (b"mcp-name", b"count"))))
    assert "2026-07-28" in discovered["result"]["supportedVersions"]
    assert [message.get("method") for message in counted] == ["notifications/progress"] * 3 + [None]
    assert counted[-1]["result"]["content"][0]["text"] == "counted"


async def test_legacy_server_keeps_its_session_and_ends_it(origin: str, client: Any) -> None:
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    async with http_upstream(0, client, url=f"{origin}/mcp") as upstream:
        with anyio.fail_after(20):
            reply = await upstream.send(post(json.dumps(initialize).encode()))
            session = [
                (b"mcp-session-id", reply.headers["mcp-session-id"].encode()),
                (b"mcp-protocol-version", b"2025-11-25"),
            ]
            [answer] = await messages(reply)
            assert answer["result"]["protocolVersion"] == "2025-11-25"
            note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
            assert await status_of(await upstream.send(UpstreamRequest("POST", session, note))) == 202
            stream = await upstream.send(UpstreamRequest("GET", [*session, (b"accept", b"text/event-stream")]))
            assert stream.streams
            call = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}'
            [added] = await messages(await upstream.send(UpstreamRequest("POST", session, call)))
            assert added["result"]["content"][0]["text"] == "3"
            await stream.close()
            assert await status_of(await upstream.send(UpstreamRequest("DELETE", session))) == 200
            assert await status_of(await upstream.send(UpstreamRequest("POST", session, call))) == 404
