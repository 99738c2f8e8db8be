"""Messages under way: what became of them is told once, and what is not certain is called doubtful."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from fulcrum_adapters.jetstream.acks import AT_ONCE, Letter, Post
from fulcrum_adapters.jetstream.client import Client, Heard
from fulcrum_adapters.jetstream.config import JetStreamConfig
from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_mcp.errors import Unavailable

pytestmark = pytest.mark.anyio

STORED = b'{"stream":"FULCRUM_AUDIT","seq":1}'
FULL = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Line:
    """A connection and its client: what was said is kept, what is heard is what a test says."""

    def __init__(self) -> None:
        self.config = JetStreamConfig("nats://127.0.0.1:1", timeout=0.2)
        self.said: list[bytes] = []
        self.broken: Exception | None = None
        self.there = True
        self._heard: Heard | None = None
        self._lost: Callable[[], None] | None = None

    def join(self, begin: Callable[[Any], Awaitable[None]], end: Callable[[], None]) -> None:
        self._begin, self._lost = begin, end

    async def up(self) -> None:
        await self._begin(self)

    def new_inbox(self) -> str:
        return "_INBOX.me"

    async def hear(self, subject: str, heard: Heard) -> None:
        assert subject == "_INBOX.me.*"
        self._heard = heard

    @property
    def client(self) -> Client:
        if not self.there:
            raise self.unavailable("not connected")
        return cast("Client", self)

    def unavailable(self, why: str, *, doubtful: bool = False) -> Unavailable:
        return Unavailable(why, doubtful=doubtful)

    def say(self, commands: Sequence[bytes]) -> None:
        if self.broken is not None:
            raise self.broken
        self.said += commands

    @property
    def replies(self) -> list[str]:
        return [command.split(b" ", 3)[2].decode() for command in self.said]

    def answer(self, number: int, body: bytes = STORED, headers: dict[str, str] | None = None) -> None:
        assert self._heard is not None
        self._heard(self.replies[number], headers, body)

    def lose(self) -> None:
        assert self._lost is not None
        self._lost()


@pytest.fixture
async def line() -> Line:
    return Line()


@pytest.fixture
async def post(line: Line) -> Post:
    made = Post(cast("Connection", line))
    await line.up()
    return made


def letters(size: int) -> list[Letter]:
    return [Letter("fulcrum.audit.a", b"%d" % number, "FULCRUM_AUDIT", f"id{number}") for number in range(size)]


async def said(line: Line, size: int) -> None:
    async with asyncio.timeout(5):
        while len(line.said) < size:  # noqa: ASYNC110 - what is awaited is a turn of the loop
            await asyncio.sleep(0)


def begun(post: Post, size: int) -> list[Unavailable | None]:
    told: list[Unavailable | None] = []
    post.begin(letters(size), told.append)
    return told


async def test_what_was_begun_is_sent_at_once_and_told_once_when_all_of_it_is_there(line: Line, post: Post) -> None:
    told = begun(post, 2)
    assert len(line.said) == 2
    assert b"Nats-Msg-Id: id0\r\n" in line.said[0]
    assert b"Nats-Expected-Stream: FULCRUM_AUDIT\r\n" in line.said[0]
    line.answer(1)
    line.answer(1)
    assert told == []
    line.answer(0)
    line.answer(0, FULL)
    line.lose()
    assert told == [None]


async def test_more_than_fits_a_turn_is_sent_in_several(line: Line, post: Post) -> None:
    size = 2 * AT_ONCE + 1
    sending = asyncio.create_task(post.send(letters(size)))
    await said(line, size)
    assert len(set(line.replies)) == size
    for number in range(size):
        line.answer(number)
    await sending


async def test_sending_nothing_is_nothing(line: Line, post: Post) -> None:
    await post.send([])
    assert begun(post, 0) == [None]
    assert line.said == []


@pytest.mark.parametrize("headers", [None, {"Status": "503"}])
async def test_what_was_refused_altogether_is_certain(line: Line, post: Post, headers: dict[str, str] | None) -> None:
    told = begun(post, 2)
    for number in range(2):
        line.answer(number, b"" if headers else FULL, headers)
    (fault,) = told
    assert isinstance(fault, Refused)
    assert (fault.status, fault.number, fault.doubtful) == (503, 0 if headers else 10077, False)


async def test_of_two_one_refused_is_doubtful(line: Line, post: Post) -> None:
    told = begun(post, 2)
    line.answer(0, FULL)
    line.answer(1)
    (fault,) = told
    assert fault is not None
    assert fault.doubtful
    assert "maximum bytes" in str(fault)


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"error":7}', b'{"error":{"code":"x"}}', b"[" * 99999])
async def test_an_acknowledgement_that_is_none_is_doubtful(line: Line, post: Post, body: bytes) -> None:
    told = begun(post, 1)
    line.answer(0, body)
    (fault,) = told
    assert fault is not None
    assert fault.doubtful


async def test_what_is_not_answered_in_time_is_doubtful_and_its_late_answer_nobody_s(line: Line, post: Post) -> None:
    with pytest.raises(Unavailable, match="in time") as caught:
        await post.send(letters(1))
    assert caught.value.doubtful
    line.answer(0)
    told = begun(post, 2)
    line.answer(1)
    async with asyncio.timeout(5):
        while not told:  # noqa: ASYNC110 - until the patience of the post has ended
            await asyncio.sleep(0.01)
    line.answer(2)
    (fault,) = told
    assert fault is not None
    assert fault.doubtful


async def test_a_lost_connection_leaves_what_is_under_way_in_doubt_and_refuses_the_rest(line: Line, post: Post) -> None:
    told, other = begun(post, 2), begun(post, 1)
    line.answer(0)
    line.lose()
    assert [fault is not None and fault.doubtful for fault in (*told, *other)] == [True, True]
    (fault,) = begun(post, 1)
    assert fault is not None
    assert not fault.doubtful
    assert len(line.said) == 3


async def test_a_connection_lost_between_two_turns_leaves_all_in_doubt(line: Line, post: Post) -> None:
    sending = asyncio.create_task(post.send(letters(AT_ONCE + 1)))
    await said(line, AT_ONCE)
    for number in range(AT_ONCE):
        line.answer(number)
    line.lose()
    with pytest.raises(Unavailable) as caught:
        await sending
    assert caught.value.doubtful
    assert len(line.said) == AT_ONCE


async def test_without_a_connection_nothing_is_sent_and_that_is_certain(line: Line, post: Post) -> None:
    line.there = False
    (fault,) = begun(post, 1)
    assert fault is not None
    assert not fault.doubtful
    with pytest.raises(Unavailable) as caught:
        await post.send(letters(1))
    assert not caught.value.doubtful
    assert line.said == []


async def test_a_connection_that_fails_while_it_is_written_to_leaves_a_doubt(line: Line, post: Post) -> None:
    line.broken = BrokenPipeError("gone")
    (fault,) = begun(post, 1)
    assert fault is not None
    assert fault.doubtful
    with pytest.raises(Unavailable, match="gone") as caught:
        await post.send(letters(AT_ONCE * 3))
    assert caught.value.doubtful


async def test_who_stops_waiting_leaves_nothing_behind(line: Line, post: Post) -> None:
    sending = asyncio.create_task(post.send(letters(1)))
    await said(line, 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    line.answer(0)
    assert post._pending == {}
