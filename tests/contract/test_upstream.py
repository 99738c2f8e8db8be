"""The `Upstream` port: one suite over every adapter.

A new adapter joins by an arrangement in `ARRANGEMENTS`: a context manager that yields the upstream named "files" over a
peer which knows five methods: `echo` (the result is the params), `count` (as many notifications as `params.n`, then the
result), `hang` (no answer ever), `die` (the connection or process ends without an answer) and any notification.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from wire_server import Peer, http_upstream, wire_server

from fulcrum_adapters.memory.upstream import MemoryReply, MemoryUpstream
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import ServerSentEvent, Upstream, UpstreamReply, UpstreamRequest

pytestmark = pytest.mark.anyio

Arrangement = Callable[[], AbstractAsyncContextManager[Upstream]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def messages(call: dict[str, Any]) -> list[bytes]:
    """What the peer says to `echo` and `count`."""
    count = call["params"]["n"] if call["method"] == "count" else 0
    notes: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": n}}
        for n in range(count)
    ]
    result = {"jsonrpc": "2.0", "id": call["id"], "result": call["params"]}
    return [json.dumps(message, ensure_ascii=False).encode() for message in [*notes, result]]


@asynccontextmanager
async def memory() -> AsyncIterator[Upstream]:
    async def reply(request: UpstreamRequest) -> MemoryReply:
        call = json.loads(request.message)
        if "id" not in call:
            return MemoryReply(202, {})
        if call["method"] == "hang":
            await anyio.sleep_forever()
        if call["method"] == "die":
            raise UpstreamFailed("upstream files: it ended; start it again", sent=True)
        said = messages(call)
        if call["method"] == "count":
            return MemoryReply(headers={"content-type": "text/event-stream"}, stream=map(ServerSentEvent, said))
        return MemoryReply(body=said[0])

    upstream = MemoryUpstream("files", reply)
    yield upstream
    await upstream.close()


async def http_peer(peer: Peer) -> None:
    while True:
        call = json.loads((await peer.request()).partition(b"\r\n\r\n")[2])
        if "id" not in call:
            await peer.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
        elif call["method"] == "hang":
            await peer.left()
        elif call["method"] == "die":
            return
        elif call["method"] == "count":
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for message in messages(call):
                event = b"event: message\r\ndata: " + message + b"\r\n\r\n"
                await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await peer.send(b"0\r\n\r\n")
        else:
            body = messages(call)[0]
            await peer.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )


@asynccontextmanager
async def http(client: Any) -> AsyncIterator[Upstream]:
    async with wire_server(http_peer) as server, http_upstream(server.port, client) as upstream:
        yield upstream


ARRANGEMENTS: dict[str, Arrangement] = {
    "memory": memory,
    "http pool": partial(http, "pool"),
    "http aiohttp": partial(http, "aiohttp"),
}


@pytest.fixture(params=ARRANGEMENTS)
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    async with ARRANGEMENTS[request.param]() as arranged:
        yield arranged


def request_of(method: str, params: object = None, *, call_id: int | None = 1) -> UpstreamRequest:
    document: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    if call_id is not None:
        document["id"] = call_id
    message = json.dumps(document, ensure_ascii=False).encode()
    return UpstreamRequest("POST", [(b"mcp-method", method.encode())], message, document)


async def said(reply: UpstreamReply) -> list[Any]:
    """All messages of an answer, whichever form it takes."""
    if not reply.streams:
        return [json.loads(await reply.read())]
    return [json.loads(event.data) async for event in reply.events() if event.data and not event.comment]


async def test_it_has_its_name(upstream: Upstream) -> None:
    assert upstream.name == "files"


async def test_no_json_value_changes_on_the_way(upstream: Upstream) -> None:
    params = {"big": 2**70, "deep": [{"ä": None}, "\u2028", "\x00"], "x-unknown": {"n": 1.5}, "text": "a" * 200_000}
    with anyio.fail_after(10):
        answered = await said(await upstream.send(request_of("echo", params)))
    assert answered == [{"jsonrpc": "2.0", "id": 1, "result": params}]


async def test_calls_at_once_get_their_own_answers(upstream: Upstream) -> None:
    async def call(n: int) -> None:
        reply = await upstream.send(request_of("echo", {"n": n}, call_id=n))
        assert reply.status == 200
        assert await said(reply) == [{"jsonrpc": "2.0", "id": n, "result": {"n": n}}]

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for n in range(1, 31):
                tasks.start_soon(call, n)


async def test_a_stream_gives_every_message_in_order_then_ends(upstream: Upstream) -> None:
    with anyio.fail_after(10):
        answered = await said(await upstream.send(request_of("count", {"n": 50})))
    assert [message["params"]["progress"] for message in answered[:-1]] == list(range(50))
    assert answered[-1]["result"] == {"n": 50}


async def test_a_notification_is_accepted_without_an_answer(upstream: Upstream) -> None:
    with anyio.fail_after(10):
        reply = await upstream.send(request_of("notifications/x", call_id=None))
        assert (reply.status, reply.streams, await reply.read()) == (202, False, b"")


async def test_a_cancelled_call_leaves_the_upstream_usable(upstream: Upstream) -> None:
    async def call() -> None:
        await said(await upstream.send(request_of("hang")))

    task = asyncio.create_task(call())
    with anyio.fail_after(10):
        assert await said(await upstream.send(request_of("echo", {"n": 1}, call_id=2)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await said(await upstream.send(request_of("echo", {"n": 3}, call_id=3)))


async def test_a_reply_closed_early_and_twice_leaves_the_upstream_usable(upstream: Upstream) -> None:
    with anyio.fail_after(10):
        reply = await upstream.send(request_of("count", {"n": 1000}))
        await reply.close()
        await reply.close()
        assert await said(await upstream.send(request_of("echo", {"n": 1}, call_id=2)))


async def test_a_peer_that_ends_without_an_answer_is_a_failure_that_counts_as_sent(upstream: Upstream) -> None:
    with anyio.fail_after(10):
        with pytest.raises(UpstreamFailed, match="upstream files") as caught:
            await said(await upstream.send(request_of("die")))
        assert caught.value.sent


async def test_after_close_nothing_is_sent(upstream: Upstream) -> None:
    await upstream.close()
    await upstream.close()
    with anyio.fail_after(10), pytest.raises(UpstreamFailed, match="upstream files") as caught:
        await upstream.send(request_of("echo", {"n": 1}))
    assert not caught.value.sent
