"""A request's head has a bound before any key is looked at."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn

from fulcrum_mcp.api import bounded_http
from fulcrum_mcp.api.bounded_http import MAX_HEAD, BoundedHttp

pytestmark = [pytest.mark.anyio, pytest.mark.service]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body", False):
        pass
    if scope["path"] == "/slow":
        with anyio.move_on_after(0.2):  # what is tested is that time passes
            await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def _served() -> AsyncIterator[int]:
    config = uvicorn.Config(
        _app, port=0, http=BoundedHttp, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    loop = asyncio.create_task(server.main_loop())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await loop
        await server.shutdown()


async def _exchange(port: int, *parts: bytes) -> bytes:
    with anyio.fail_after(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read(1024)
        finally:
            writer.close()


async def test_a_head_without_end_is_refused() -> None:
    async with _served() as port:
        endless = [b"POST / HTTP/1.1\r\nhost: a\r\nx-long: "] + [b"a" * 16384] * (MAX_HEAD // 16384 + 2)
        assert (await _exchange(port, *endless)).startswith(b"HTTP/1.1 431 ")


async def test_a_large_body_is_no_large_head() -> None:
    async with _served() as port:
        body = b"b" * (MAX_HEAD * 8)
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
        assert (await _exchange(port, head + body)).startswith(b"HTTP/1.1 200 ")


async def test_each_request_of_a_connection_has_its_own_bound() -> None:
    async with _served() as port:
        request = b"GET / HTTP/1.1\r\nhost: a\r\nx-some: " + b"a" * 30_000 + b"\r\n\r\n"
        with anyio.fail_after(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(5):
                writer.write(request)
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_trailers_without_end_close_the_connection() -> None:
    async with _served() as port:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n"
        trailers = [b"x-some: " + b"a" * 16_000 + b"\r\n"] * 64
        with anyio.fail_after(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                for part in (head, *trailers):
                    writer.write(part)
                    await writer.drain()
                assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf"])
async def test_a_request_that_never_comes_whole_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "PATIENCE", 0.05)
    async with _served() as port:
        assert await _exchange(port, begun) == b""


async def test_an_answer_may_take_longer_than_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "PATIENCE", 0.05)
    async with _served() as port:
        request = b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"
        assert (await _exchange(port, request)).startswith(b"HTTP/1.1 200 ")
