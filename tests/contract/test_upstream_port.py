"""What every `Upstream` promises, over all its adapters."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import pytest
from peers.stdio_client import META, config
from wire_server import Peer, http_upstream, wire_server

from fulcrum_adapters.memory.upstream import MemoryReply, MemoryUpstream
from fulcrum_adapters.upstream.stdio import StdioUpstream
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import Upstream, UpstreamRequest

pytestmark = pytest.mark.anyio

HEADERS = [(b"mcp-protocol-version", b"2026-07-28"), (b"accept", b"application/json, text/event-stream")]


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def answered(message: bytes) -> bytes:
    document = json.loads(message)
    return json.dumps({"jsonrpc": "2.0", "id": document["id"], "result": {}}).encode()


@contextlib.asynccontextmanager
async def over_http() -> AsyncGenerator[Upstream]:
    async def script(peer: Peer) -> None:
        while True:
            body = answered((await peer.request()).partition(b"\r\n\r\n")[2])
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            await peer.send(head.encode() + body)

    async with wire_server(script) as server, http_upstream(server.port) as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def over_stdio() -> AsyncGenerator[Upstream]:
    upstream = StdioUpstream("files", config())
    try:
        yield upstream
    finally:
        await upstream.close()


@contextlib.asynccontextmanager
async def in_memory() -> AsyncGenerator[Upstream]:
    yield MemoryUpstream("files", lambda request: MemoryReply(body=answered(request.message)))


@pytest.fixture(params=[over_http, over_stdio, in_memory], ids=["http", "stdio", "memory"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    async with request.param() as made:
        yield made


def ping(number: Any) -> UpstreamRequest:
    document = {"jsonrpc": "2.0", "id": number, "method": "ping", "params": {"_meta": META}}
    return UpstreamRequest("POST", HEADERS, json.dumps(document).encode(), document)


async def test_request_gets_a_body_with_its_own_id(upstream: Upstream) -> None:
    with anyio.fail_after(20):
        for number in (1, "one", 1):
            reply = await upstream.send(ping(number))
            assert (reply.status, reply.streams) == (200, False)
            assert reply.headers["content-type"] == "application/json"
            assert json.loads(await reply.read()) == {"jsonrpc": "2.0", "id": number, "result": {}}
            await reply.close()
            await reply.close()


async def test_requests_at_once_get_their_own_answers(upstream: Upstream) -> None:
    answers: dict[int, Any] = {}

    async def one(number: int) -> None:
        reply = await upstream.send(ping(number))
        answers[number] = json.loads(await reply.read())["id"]
        await reply.close()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)
    assert answers == {number: number for number in range(20)}


async def test_closed_upstream_sends_nothing_and_says_so(upstream: Upstream) -> None:
    with anyio.fail_after(20):
        await (await upstream.send(ping(1))).read()
        await upstream.close()
        await upstream.close()
        with pytest.raises(UpstreamFailed, match="files") as failure:
            await upstream.send(ping(2))
    assert not failure.value.sent
