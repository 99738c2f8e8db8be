"""What an HTTP upstream makes of an answer's bytes: every proper one is read whole, every broken one is a failure."""

import gzip
import zlib
from typing import Any, Literal

import anyio
import pytest
from wire_server import Peer, answer, http_upstream, post, wire_server

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import ServerSentEvent

pytestmark = pytest.mark.anyio

Client = Literal["pool", "aiohttp"]
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\n"
SSE = OK + b"content-type: text/event-stream\r\n"


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["pool", "aiohttp"])
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    return found


PROPER = {
    "content-length": (JSON + b"content-length: 2\r\n\r\n{}", 200, b"{}"),
    "empty body": (JSON + b"content-length: 0\r\n\r\n", 200, b""),
    "202 without body": (b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", 202, b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
    "error status with body": (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope", 404, b"nope"),
    "no reason phrase": (b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
    "chunked": (JSON + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, b"{}"),
    "chunk extension": (JSON + b"transfer-encoding: chunked\r\n\r\n2;a=b;c\r\n{}\r\n0;d\r\n\r\n", 200, b"{}"),
    "trailers": (JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nmcp-session-id: evil\r\n\r\n", 200, b"{}"),
    "upper-case names": (OK + b"CONTENT-LENGTH: 2\r\nCONTENT-TYPE: application/json\r\n\r\n{}", 200, b"{}"),
    "upper-case chunked": (
        JSON + b"Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"0123456789",
    ),
    "100 before": (b"HTTP/1.1 100 Continue\r\n\r\n" + JSON + b"content-length: 2\r\n\r\n{}", 200, b"{}"),
    "102 and 103 before": (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        + JSON
        + b"content-length: 2\r\n\r\n{}",
        200,
        b"{}",
    ),
    "connection: close with length": (JSON + b"connection: close\r\ncontent-length: 2\r\n\r\n{}", 200, b"{}"),
}

TO_THE_END = {
    "until close": (JSON + b"connection: close\r\n\r\n{}", 200, b"{}"),
    "HTTP/1.0 until close": (b"HTTP/1.0 200 OK\r\n\r\n{}", 200, b"{}"),
}


@pytest.mark.parametrize("case", PROPER)
async def test_proper_answer_is_read_whole(client: Client, case: str) -> None:
    raw, status, body = PROPER[case]
    async with wire_server(answer(raw)) as server, http_upstream(server.port, client) as upstream:
        for _ in range(2):
            reply = await upstream.send(post())
            assert (reply.status, await reply.read()) == (status, body)
            assert "mcp-session-id" not in reply.headers


@pytest.mark.parametrize("case", TO_THE_END)
async def test_answer_without_length_ends_with_the_connection(client: Client, case: str) -> None:
    raw, status, body = TO_THE_END[case]
    async with wire_server(answer(raw, close=True)) as server, http_upstream(server.port, client) as upstream:
        for _ in range(2):
            reply = await upstream.send(post())
            assert (reply.status, await reply.read()) == (status, body)
        assert server.connections == 2


BROKEN = {
    "garbage": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "half a head": OK + b"content-ty",
    "short body": JSON + b"content-length: 10\r\n\r\n{}",
    "no final chunk": JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "half a chunk": JSON + b"transfer-encoding: chunked\r\n\r\n5\r\n{}",
    "chunk size that is no number": JSON + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "negative length": JSON + b"content-length: -1\r\n\r\n{}",
    "length that is no number": JSON + b"content-length: 2x\r\n\r\n{}",
    "two lengths": JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    "length and chunked": JSON + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked and length": JSON + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip as transfer coding": JSON + b"transfer-encoding: gzip\r\n\r\n{}",
    "chunked twice": JSON + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nx",
    "huge header": OK + b"x-long: " + b"a" * 70_000 + b"\r\ncontent-length: 2\r\n\r\n{}",
    "many headers": OK + b"".join(b"x-%d: abcdefgh\r\n" % n for n in range(5_000)) + b"content-length: 2\r\n\r\n{}",
    "two session ids": JSON + b"mcp-session-id: a\r\nmcp-session-id: b\r\ncontent-length: 2\r\n\r\n{}",
    "brotli": JSON + b"content-encoding: br\r\ncontent-length: 2\r\n\r\n{}",
    "not gzip": JSON + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_answer_is_a_failure_that_counts_as_sent(client: Client, case: str) -> None:
    async with wire_server(answer(BROKEN[case], close=True)) as server, http_upstream(server.port, client) as upstream:
        with (
            anyio.fail_after(5),
            pytest.raises(UpstreamFailed, match=r"^upstream files at http://127\.0\.0\.1:") as caught,
        ):
            await (await upstream.send(post())).read()
        assert caught.value.sent
        assert "canary" not in str(caught.value)
        assert len(server.requests) == 1


ONLY_POOL_IS_STRICT = {
    "body beyond 204": b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}",
    "second answer": (JSON + b"content-length: 2\r\n\r\n{}") * 2,
    "second head begins": JSON + b"content-length: 2\r\n\r\n{}H",
    "close, then more": JSON + b"connection: close\r\ncontent-length: 2\r\n\r\n{}{}",
}


@pytest.mark.parametrize("case", ONLY_POOL_IS_STRICT)
async def test_bytes_beyond_an_answer_drop_the_connection(case: str) -> None:
    raw = ONLY_POOL_IS_STRICT[case]
    async with wire_server(answer(raw)) as server, http_upstream(server.port) as upstream:
        for number in (1, 2):
            reply = await upstream.send(post())
            assert await reply.read() == (b"" if reply.status == 204 else b"{}")
            assert server.connections == number


@pytest.mark.parametrize(
    "head", [b"HTTP/2.0 200 OK", b"HTTP/1.1 99 Odd", b"HTTP/1.1 600 Odd", b"HTTP/1.1 200 OK\nx: y", b"ICY 200 OK"]
)
async def test_status_line_out_of_range_is_a_failure(head: bytes) -> None:
    script = answer(head + b"\r\ncontent-length: 2\r\n\r\n{}", close=True)
    async with wire_server(script) as server, http_upstream(server.port) as upstream:
        with pytest.raises(UpstreamFailed):
            await (await upstream.send(post())).read()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_refused_and_names_its_target_without_secrets(client: Client, status: int) -> None:
    raw = b"HTTP/1.1 %d Moved\r\nlocation: https://u:pw@other.example/mcp?token=t0ken#f\r\ncontent-length: 0\r\n\r\n"
    async with wire_server(answer(raw % status)) as server, http_upstream(server.port, client) as upstream:
        with pytest.raises(UpstreamFailed, match=rf"redirects \({status}\) to https://other\.example/mcp, ") as caught:
            await upstream.send(post())
    assert not any(secret in str(caught.value) for secret in ("pw", "t0ken", "canary"))


async def test_credentials_and_connection_headers_of_an_answer_are_kept_back(client: Client) -> None:
    raw = JSON + (
        b'WWW-Authenticate: Bearer resource_metadata="x"\r\nset-cookie: a=b\r\nserver: s\r\n'
        b"X-Accel-Redirect: /secret\r\nMcp-Session-Id: s1\r\nretry-after: 7\r\nx-a: 1\r\n"
        b"x-a: 2\r\ncontent-length: 2\r\n\r\n{}"
    )
    async with wire_server(answer(raw)) as server, http_upstream(server.port, client) as upstream:
        reply = await upstream.send(post())
        await reply.read()
    assert reply.headers == {
        "content-type": "application/json",
        "mcp-session-id": "s1",
        "retry-after": "7",
        "x-a": "1, 2",
    }


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_packed_answer_is_unpacked(client: Client, coding: str) -> None:
    plain = b'{"text": "' + b"abc" * 200_000 + b'"}'
    packed = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    raw = JSON + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (coding.encode(), len(packed), packed)
    async with wire_server(answer(raw)) as server, http_upstream(server.port, client) as upstream:
        reply = await upstream.send(post())
        assert await reply.read() == plain
        assert "content-encoding" not in reply.headers


async def test_packed_bomb_is_stopped_at_the_limit(client: Client) -> None:
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    raw = JSON + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
    script = answer(raw)
    async with wire_server(script) as server, http_upstream(server.port, client, max_body=1 << 20) as upstream:
        with pytest.raises(UpstreamFailed, match="larger than 1048576 bytes"):
            await (await upstream.send(post())).read()


@pytest.mark.parametrize("cut", [10, -1])
async def test_packed_answer_cut_off_or_followed_by_more_is_a_failure(client: Client, cut: int) -> None:
    packed = gzip.compress(b"{}" * 100) + b"more" if cut < 0 else gzip.compress(b"{}" * 100)[:cut]
    raw = JSON + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
    async with wire_server(answer(raw)) as server, http_upstream(server.port, client) as upstream:
        with pytest.raises(UpstreamFailed, match="packed body"):
            await (await upstream.send(post())).read()


async def test_body_beyond_the_limit_is_a_failure_and_closes(client: Client) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(JSON + b"transfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"400\r\n" + b"a" * 1024 + b"\r\n")

    async with wire_server(endless) as server, http_upstream(server.port, client, max_body=100_000) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamFailed, match="larger than 100000 bytes"):
            await (await upstream.send(post())).read()
        await server.until_gone(1)


@pytest.mark.parametrize(
    "flood",
    [
        b"x" * 8192,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 300,
        JSON + b"transfer-encoding: chunked\r\n\r\n1;" + b"e" * 8192,
        JSON + b"transfer-encoding: chunked\r\n\r\n0\r\nt: " + b"v" * 8192,
    ],
    ids=["garbage", "1xx", "chunk extension", "trailer"],
)
async def test_endless_framing_is_bounded(flood: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(flood)
        while True:
            await peer.send(flood[-8192:])

    async with wire_server(script) as server, http_upstream(server.port) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamFailed):
            await (await upstream.send(post())).read()
        await server.until_gone(1)


async def test_events_come_as_they_are_sent_and_the_connection_is_used_again(client: Client) -> None:
    go = anyio.Event()

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(SSE + b"transfer-encoding: chunked\r\n\r\n")
            await peer.send(b"9\r\nid: 1\r\nda\r\n")
            await peer.send(b"9\r\nta: {}\n\n:\r\n")
            await go.wait()
            await peer.send(b"1\r\n\n\r\n8\r\ndata: b\n\r\n1\r\n\n\r\n0\r\n\r\n")

    async with wire_server(script) as server, http_upstream(server.port, client) as upstream:
        for _ in range(2):
            reply = await upstream.send(post())
            assert reply.streams
            events = reply.events()
            with anyio.fail_after(5):
                assert await anext(events) == ServerSentEvent(b"{}", id="1")
                go.set()
                rest = [event async for event in events]
            assert rest == [ServerSentEvent(b"", comment=True), ServerSentEvent(b"b")]
        assert server.connections == 1


@pytest.mark.parametrize(
    "tail",
    [b"9\r\ndata: {}\n\r\n", b"9\r\ndata: {}\n\r\n0\r\n\r\n", b"9\r\ndata: {}"],
    ids=["no end", "within", "chunk"],
)
async def test_stream_that_breaks_off_is_a_failure_after_its_events(client: Client, tail: bytes) -> None:
    raw = SSE + b"transfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n" + tail
    async with wire_server(answer(raw, close=True)) as server, http_upstream(server.port, client) as upstream:
        events = (await upstream.send(post())).events()
        assert (await anext(events)).data == b"a"
        with anyio.fail_after(5), pytest.raises(UpstreamFailed) as caught:
            await anext(events)
        assert caught.value.sent


async def test_event_beyond_the_limit_is_a_failure(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE + b"\r\ndata: ")
        while True:
            await peer.send(b"a" * 8192)

    async with wire_server(script) as server, http_upstream(server.port, client, max_event=100_000) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamFailed, match="an event is larger"):
            await anext((await upstream.send(post())).events())
        await server.until_gone(1)
