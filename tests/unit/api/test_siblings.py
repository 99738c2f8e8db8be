"""Handing one request over: what the sibling's application is given, and what the client gets back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from asgi_driver import Asgi, Exchanged, HeaderLines
from sibling_sockets import listening, serving, short_folder

from fulcrum_mcp.api import siblings
from fulcrum_mcp.api.mcp.writer import send_body
from fulcrum_mcp.api.siblings import RELAYED, Relayed, RelayedFace, SiblingLost, Siblings, SiblingSilent
from fulcrum_mcp.gateway.seat import Seat

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Any:
    with short_folder() as name:
        yield Path(name)


@pytest.fixture
async def relaying(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Sends a request through `Siblings.relay` to `app`."""
    asgi: list[Asgi] = []

    async def send_through(
        app: Any, verb: str = "POST", headers: HeaderLines | None = None, body: bytes = b"{}", **scope: Any
    ) -> Exchanged:
        between = Siblings(Seat(1, 2), folder)

        async def first(given: Any, receive: Any, send: Any) -> None:
            whole = await receive()
            done = await between.relay(2, {**given, **scope}, whole["body"], receive, send)
            if not done:
                await send_body(send, 299, b"not there", [])

        async with serving(app, folder / "2.sock"):
            asgi.append(Asgi(first))
            return await asgi[-1].request(verb, "/mcp", headers or [(b"host", b"h")], body)

    yield send_through
    for each in asgi:
        await each.close()


SCOPE: dict[str, Any] = {"method": "POST", "raw_path": b"/mcp", "query_string": b"", "headers": [], "client": None}


class Heard:
    """An application that keeps what it was given, and answers 200."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.body = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        event = await receive()
        self.body = event["body"]
        while event.get("more_body"):
            event = await receive()
            self.body += event["body"]
        await send_body(send, 200, b"heard", [(b"x-answer", b"1")])


@pytest.mark.parametrize("client", [("127.0.0.1", 5), ("10.1.2.3", 60_000), ("fe80::1", 1), None])
async def test_owner_sees_the_request_as_it_came_with_the_clients_own_address(
    relaying: Callable[..., Any], client: Any
) -> None:
    heard = Heard()
    headers = [
        (b"host", b"gw.example"),
        (b"authorization", b"Bearer secret"),
        (b"x-forwarded-for", b"9.9.9.9"),
        (b"mcp-session-id", b"f1.abc"),
        (b"connection", b"keep-alive"),
        (b"content-length", b"2"),
        (b"expect", b"100-continue"),
        (b"x-fulcrum-relayed", b"127.0.0.1 1 0"),
        (b"x-fulcrum-relayed", b"127.0.0.1 1 1"),
    ]
    reply = await relaying(heard, headers=headers, client=client, query_string=b"a=1&b=%20", raw_path=b"/mcp%20x")
    assert (reply.status, reply.body, reply.header("x-answer")) == (200, b"heard", "1")
    assert heard.scope["client"] == client
    assert heard.scope[RELAYED] == Relayed(only_if_known=False)
    assert (heard.scope["method"], heard.scope["raw_path"], heard.scope["query_string"]) == (
        "POST",
        b"/mcp%20x",
        b"a=1&b=%20",
    )
    got = dict(heard.scope["headers"])
    assert got.pop(b"content-length") == b"2"
    assert {name: got[name] for name, _ in headers[:4]} == dict(headers[:4])
    assert b"x-fulcrum-relayed" not in got


@pytest.mark.parametrize("size", [0, 1, 70_000, 4 << 20])
async def test_bodies_of_every_size_arrive_whole_both_ways(relaying: Callable[..., Any], size: int) -> None:
    heard = Heard()
    assert (await relaying(heard, body=b"x" * size)).status == 200
    assert heard.body == b"x" * size

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a/b")]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"y" * size, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert (await relaying(large)).body == b"y" * size * 3


async def test_get_and_delete_and_empty_answers_pass(relaying: Callable[..., Any]) -> None:
    async def verb(scope: Any, _receive: Any, send: Any) -> None:
        status = 204 if scope["method"] == "DELETE" else 405
        await send_body(send, status, b"", [(b"allow", b"POST")] if status == 405 else [])

    assert (await relaying(verb, "DELETE", body=b"")).status == 204
    assert (await relaying(verb, "GET", body=b"")).header("allow") == "POST"


async def test_sibling_that_does_not_know_it_or_is_not_there_leaves_the_request_to_others(
    relaying: Callable[..., Any], folder: Path
) -> None:
    async def unknown(_scope: Any, _receive: Any, send: Any) -> None:
        await send_body(send, 421, b"", [])

    assert (await relaying(unknown)).body == b"not there"

    async def nothing() -> Any:
        await asyncio.Event().wait()

    async def never(_message: Any) -> None:
        raise AssertionError("something was sent")

    assert not await Siblings(Seat(1, 3), folder).relay(3, SCOPE, b"", nothing, never)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"", "not there"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "lost"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe", "begun"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "begun"),
        (b"nonsense", "not there"),
    ],
)
async def test_sibling_that_ends_meanwhile(folder: Path, said: bytes, outcome: str) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def nothing() -> Any:
        await asyncio.Event().wait()

    server = await asyncio.start_unix_server(end, str(folder / "2.sock"))
    async with server:
        relay = Siblings(Seat(1, 2), folder).relay(2, SCOPE, b"", nothing, keep)
        if outcome == "lost":
            with pytest.raises(SiblingLost):
                await relay
        else:
            assert await relay is (outcome == "begun")
    assert [message["type"] for message in sent][:1] == (["http.response.start"] if outcome == "begun" else [])
    assert all(message.get("more_body", True) for message in sent), "an answer that broke off was ended"


async def test_silent_sibling_is_not_waited_for_and_never_gets_the_body(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_PATIENCE", 0.05)
    monkeypatch.setattr(siblings, "_PROBE", 0.05)

    async def nothing(*_: Any) -> Any:
        await asyncio.Event().wait()

    left = asyncio.Semaphore(0)
    heard: list[bytes] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()
        await writer.wait_closed()
        left.release()

    async with await asyncio.start_unix_server(silent, str(folder / "2.sock")):
        async with asyncio.timeout(5):
            between = Siblings(Seat(1, 2), folder)
            for only_if_known in (False, True):
                with pytest.raises(SiblingSilent):
                    await between.relay(2, SCOPE, b"the body", nothing, nothing, only_if_known=only_if_known)
            await left.acquire()
            await left.acquire()
    assert [b"content-length: 8" in head and b"the body" not in head for head in heard] == [True, True]


async def test_sibling_whose_line_is_full_is_silent_and_not_gone(folder: Path) -> None:
    async def nothing(*_: Any) -> Any:
        await asyncio.Event().wait()

    with socket.socket(socket.AF_UNIX) as bound, contextlib.ExitStack() as waiting:
        bound.bind(str(folder / "2.sock"))
        bound.listen(0)
        for _ in range(2):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(folder / "2.sock"))
        with pytest.raises(SiblingSilent):
            async with asyncio.timeout(8):
                await Siblings(Seat(1, 2), folder).relay(2, SCOPE, b"", nothing, nothing)


async def test_owner_that_wakes_up_after_it_was_given_up_does_not_do_what_it_was_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_PATIENCE", 0.05)
    done: list[bytes] = []
    ended = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        if event["type"] == "http.request":
            done.append(event["body"])
            await send_body(send, 200, b"", [])
        ended.set()

    async def nothing(*_: Any) -> Any:
        await asyncio.Event().wait()

    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(folder / "2.sock"))
    bound.listen(8)
    with pytest.raises(SiblingSilent):
        await Siblings(Seat(1, 2), folder).relay(2, SCOPE, b"do it", nothing, nothing)
    async with listening(app, bound), asyncio.timeout(5):
        await ended.wait()
    assert done == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-fulcrum-relayed", b"")],
        [(b"x-fulcrum-relayed", b"127.0.0.1 1")],
        [(b"x-fulcrum-relayed", b"127.0.0.1 x 0")],
        [(b"x-fulcrum-relayed", b"127.0.0.1 1 2")],
        [(b"x-fulcrum-relayed", b"127.0.0.1 1 0")] * 2,
    ],
)
async def test_whoever_is_no_sibling_is_refused(headers: HeaderLines) -> None:
    heard = Heard()
    asgi = Asgi(RelayedFace(heard))
    assert (await asgi.request("POST", "/mcp", headers)).status == 400
    assert heard.scope is None
