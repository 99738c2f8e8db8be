"""The life of an HTTP upstream's connections: kept, stale, slow, cancelled, given up, crowded, refused."""

import asyncio
import contextlib
import socket
from typing import Any, Literal

import anyio
import pytest
from wire_server import Peer, answer, http_upstream, post, wire_server

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

Client = Literal["pool", "aiohttp"]
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EMPTY = JSON + b"content-length: 2\r\n\r\n{}"


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["pool", "aiohttp"])
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.left()


async def test_judged_bytes_and_operator_headers_arrive_as_they_are(client: Client) -> None:
    message = '{"a":"ä","n":123456789012345678901234567890}'.encode()
    async with wire_server(answer(EMPTY)) as server, http_upstream(server.port, client) as upstream:
        reply = await upstream.send(
            post(
                message,
                (b"mcp-method", b"tools/call"),
                (b"accept", b"application/json"),
                (b"Authorization", b"Bearer of-the-client"),
                (b"cookie", b"of-the-client"),
                (b"x-api-key", b"of-the-client"),
                (b"x-goog-iap-jwt-assertion", b"of-the-client"),
                (b"user-agent", b"of-the-client"),
                (b"x-forwarded-for", b"of-the-client"),
                (b"transfer-encoding", b"chunked"),
                (b"content-length", b"1"),
                (b"host", b"of-the-client"),
            )
        )
        assert await reply.read() == b"{}"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = [line.lower() for line in head.split(b"\r\n")]
    assert lines[0] == b"post /mcp?key=canary-query http/1.1"
    assert body == message
    assert sorted(lines[1:]) == sorted(
        [
            b"host: 127.0.0.1:%d" % server.port,
            b"authorization: bearer canary-secret",
            b"accept-encoding: identity",
            b"user-agent: fulcrum/0.1.0",
            b"content-type: application/json",
            b"mcp-method: tools/call",
            b"accept: application/json",
            b"content-length: %d" % len(message),
        ]
    )


async def test_get_and_delete_have_no_body(client: Client) -> None:
    async with wire_server(answer(EMPTY)) as server, http_upstream(server.port, client) as upstream:
        for verb in ("GET", "DELETE"):
            await (await upstream.send(UpstreamRequest(verb, [(b"last-event-id", b"7")]))).read()
    for raw, start in zip(server.requests, (b"GET /mcp", b"DELETE /mcp"), strict=True):
        assert raw.startswith(start)
        assert b"content-type" not in raw.lower()
        assert raw.endswith(b"\r\n\r\n")
        assert b"last-event-id: 7" in raw


async def test_head_has_no_answer_body(client: Client) -> None:
    script = answer(JSON + b"content-length: 999\r\n\r\n")
    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        reply = await upstream.send(UpstreamRequest("HEAD", []))
        assert await reply.read() == b""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"mcp-name", b"a\r\nx: y"),
        (b"mcp-name", b"a\nb"),
        (b"mcp-name", b"a\0"),
        (b"x y", b"a"),
        (b"x\r\ny", b"a"),
        (b"", b""),
    ],
)
async def test_header_that_would_break_the_message_is_not_sent(client: Client, name: bytes, value: bytes) -> None:
    async with wire_server(answer(EMPTY)) as server, http_upstream(server.port, client) as upstream:
        with pytest.raises(UpstreamFailed, match="header") as caught:
            await upstream.send(post(b"{}", (name, value)))
        assert not caught.value.sent
        assert server.connections == 0


async def test_calls_in_a_row_use_one_connection_and_calls_at_once_their_own(client: Client) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            raw = await peer.request()
            if b"together" in raw:
                if server.connections == 4:
                    arrived.set()
                await go.wait()
            body = raw.partition(b"\r\n\r\n")[2]
            await peer.send(JSON + b"content-length: %d\r\n\r\n%b" % (len(body), body))

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:

        async def call(message: bytes) -> None:
            assert await (await upstream.send(post(message))).read() == message

        for n in range(5):
            await call(b'{"n":%d}' % n)
        assert server.connections == 1
        async with anyio.create_task_group() as tasks:
            for n in range(4):
                tasks.start_soon(call, b'{"together":%d}' % n)
            with anyio.fail_after(5):
                await arrived.wait()
            go.set()
        assert server.connections == 4


async def test_connection_that_the_server_closed_while_idle_is_not_used(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)
        peer.close()

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        for n in range(1, 4):
            await (await upstream.send(post())).read()
            await server.until_gone(n)
            await asyncio.sleep(0)
        assert len(server.requests) == 3


async def test_connection_closed_in_the_kernel_but_not_yet_seen_by_the_loop_is_not_used() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)
    port = listener.getsockname()[1]

    def serve() -> socket.socket:
        sock, _ = listener.accept()
        sock.recv(65536)
        sock.sendall(EMPTY)
        return sock

    async with http_upstream(port) as upstream:
        with listener:
            served = asyncio.get_running_loop().run_in_executor(None, serve)
            await (await upstream.send(post())).read()
            sock = await served
            served = asyncio.get_running_loop().run_in_executor(None, serve)
            sock.close()  # no turn of the loop between this and the next request
            await (await upstream.send(post())).read()
            (await served).close()


async def test_close_after_the_request_was_written_is_never_retried(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)
        await peer.request()
        peer.reset()

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        await (await upstream.send(post())).read()
        with anyio.fail_after(5), pytest.raises(UpstreamFailed) as caught:
            await upstream.send(post())
        assert caught.value.sent
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_half_close_after_the_answer_is_no_failure(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)
        peer.half_close()
        await peer.left()

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        assert await (await upstream.send(post())).read() == b"{}"
        if client == "pool":  # the twin may write into the half-closed connection, and says so
            assert await (await upstream.send(post())).read() == b"{}"
            assert server.connections == 2


async def test_answer_before_the_request_was_read_is_taken_and_the_connection_dropped() -> None:
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await done.wait()

    async with wire_server(script) as server, http_upstream(server.port) as upstream:
        reply = await upstream.send(post(b"a" * 32_000_000))
        assert (reply.status, await reply.read()) == (413, b"big")
        done.set()
        await (await upstream.send(post(b"a" * 32_000_000))).read()
        assert server.connections == 2


async def test_connection_that_writes_unasked_is_dropped() -> None:
    wrote = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)
        await peer.send(JSON + b'content-length: 7\r\n\r\n"stale"')
        wrote.set()
        while True:
            await peer.request()
            await peer.send(EMPTY)

    async with wire_server(script) as server, http_upstream(server.port) as upstream:
        await (await upstream.send(post())).read()
        await wrote.wait()
        assert await (await upstream.send(post())).read() == b"{}"
        assert server.connections == 2


async def test_nobody_listening_is_a_failure_with_a_remedy_and_nothing_sent(client: Client) -> None:
    port = free_port()
    async with http_upstream(port, client) as upstream:
        with pytest.raises(UpstreamFailed) as caught:
            await upstream.send(post())
    assert not caught.value.sent
    assert str(caught.value) == (
        f"upstream files at http://127.0.0.1:{port}/mcp: connection refused; start it or correct its url"
    )


async def test_no_answer_in_time_is_a_timeout_that_counts_as_sent_and_closes(client: Client) -> None:
    async with wire_server(silent) as server, http_upstream(server.port, client, head_seconds=0.1) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamFailed, match=r"no answer within 0\.1 s") as caught:
            await upstream.send(post())
        assert (caught.value.sent, caught.value.timeout) == (True, True)
        await server.until_gone(1)


async def test_head_that_drips_is_a_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            await peer.send(b"a")
            await asyncio.sleep(0.02)

    async with wire_server(script) as server, http_upstream(server.port, head_seconds=0.2) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamFailed) as caught:
            await upstream.send(post())
        assert caught.value.timeout


async def test_stream_that_stalls_is_a_timeout_and_closes(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE + b"9\r\ndata: a\n\n\r\n")
        await peer.left()

    async with wire_server(script) as server, http_upstream(server.port, client, idle_seconds=0.1) as upstream:
        events = (await upstream.send(post())).events()
        assert (await anext(events)).data == b"a"
        with anyio.fail_after(5), pytest.raises(UpstreamFailed, match=r"nothing for 0\.1 s") as caught:
            await anext(events)
        assert caught.value.timeout
        await server.until_gone(1)


async def test_idle_connection_is_closed_after_its_time() -> None:
    async with wire_server(answer(EMPTY)) as server, http_upstream(server.port, keep_seconds=0.1) as upstream:
        await (await upstream.send(post())).read()
        await server.until_gone(1)
        await (await upstream.send(post())).read()
        assert server.connections == 2


@pytest.mark.parametrize("stage", ["head", "read", "events"])
async def test_cancelling_closes_the_connection(client: Client, stage: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if stage != "head":
            await peer.send(SSE)
        await peer.left()

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:

        async def call() -> None:
            reply = await upstream.send(post())
            await (reply.read() if stage == "read" else anext(reply.events()))

        task = asyncio.create_task(call())
        await server.until(lambda: bool(server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_gone(1)


async def test_closing_a_reply_before_its_end_closes_the_connection_and_after_it_does_not(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)
        await peer.request()
        await peer.send(SSE)
        await peer.left()

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        reply = await upstream.send(post())
        await reply.read()
        await reply.close()
        reply = await upstream.send(post())
        assert server.connections == 1
        await reply.close()
        await reply.close()
        await server.until_gone(1)
        with pytest.raises(UpstreamFailed):
            await anext(reply.events())


async def test_slow_consumer_holds_the_sender_back(client: Client) -> None:
    size = 64 * 1024 * 1024
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(b"a" * 65536)
            sent += 65536

    async with wire_server(script) as server, http_upstream(server.port, client, max_body=size) as upstream:
        reply = await upstream.send(post())
        before = -1
        while sent != before:  # until the sender stands still
            before = sent
            await anyio.sleep(0.05)
        assert sent < size / 2
        assert len(await reply.read()) == size


async def test_upstream_closed_fails_what_runs_and_what_comes(client: Client) -> None:
    async with wire_server(silent) as server, http_upstream(server.port, client) as upstream:
        task = asyncio.create_task(upstream.send(post()))
        await server.until(lambda: bool(server.requests))
        await upstream.close()
        await upstream.close()
        with anyio.fail_after(5), pytest.raises(UpstreamFailed) as caught:
            await task
        assert caught.value.sent
        with pytest.raises(UpstreamFailed) as caught:
            await upstream.send(post())
        assert not caught.value.sent


async def test_answer_that_outlives_close_is_complete() -> None:
    async with wire_server(answer(EMPTY)) as server, http_upstream(server.port) as upstream:
        reply = await upstream.send(post())
        await upstream.close()
        assert await reply.read() == b"{}"
        with contextlib.suppress(UpstreamFailed):
            await upstream.send(post())
