"""Laws of the answer parser: cuts change nothing; whatever comes, a proper reply or a failure, never a hang or a crash.

The connection is driven as the event loop drives it, with a transport that takes notes.
"""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum_adapters.upstream.connection import Connection
from fulcrum_adapters.upstream.fault import Fault

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: b\r\n"
SEEDS = [
    JSON + b'Content-Length: 11\r\n\r\n{"a": true}',
    JSON + b"Content-Length: 0\r\n\r\n",
    JSON + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: v\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + JSON + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    JSON + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
    JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    JSON + b"Content-Length: 20\r\n\r\n{}",
]
BITS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b":",
    b" ",
    b"0",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\xff",
    b"F" * 9,
]


class Notes:
    """A transport that knows only whether it was ended."""

    def __init__(self) -> None:
        self.ended = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True

    def write(self, _data: bytes) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Pool:
    """An owner that counts."""

    max_head = 2000
    head_seconds = idle_seconds = keep_seconds = 1.0

    def __init__(self) -> None:
        self.kept = 0
        self.gone = 0

    def released(self, connection: Connection) -> None:  # noqa: ARG002 - the protocol's name
        self.kept += 1

    def lost(self, connection: Connection) -> None:  # noqa: ARG002 - same
        self.gone += 1

    def watch(self, deadline: float) -> None:
        pass


Outcome = tuple[int, list[tuple[bytes, bytes]], bytes, str, bool]


async def outcome(*chunks: bytes) -> Outcome:
    """Status, headers, body, fault, and whether the connection was kept before its end."""
    pool, transport = Pool(), Notes()
    connection = Connection(pool, asyncio.get_running_loop())
    seen: Any = transport
    connection.connection_made(seen)
    task = asyncio.create_task(connection.request("POST", b"head", b"body"))
    await asyncio.sleep(0)
    for chunk in chunks:
        if chunk and not transport.ended:
            connection.data_received(chunk)
    kept = pool.kept > 0 and not transport.ended
    if not transport.ended:
        connection.eof_received()
    connection.connection_lost(None)
    assert transport.ended
    assert pool.gone
    status, headers, body = 0, [], b""
    try:
        async with asyncio.timeout(2):
            exchange = await task
            status, headers = exchange.status, exchange.headers
            while data := await exchange.chunk():
                body += data
    except Fault as fault:
        return status, headers, body, fault.reason if fault.sent else "", kept
    return status, headers, body, "", kept


def run(*chunks: bytes) -> Outcome:
    return asyncio.run(outcome(*chunks))


@pytest.mark.parametrize("raw", SEEDS, ids=range(len(SEEDS)))
def test_a_cut_at_any_byte_changes_nothing(raw: bytes) -> None:
    async def all_cuts() -> None:
        whole = await outcome(raw)
        for cut in range(1, len(raw)):
            cut_up = await outcome(raw[:cut], raw[cut:])
            assert cut_up[:4] == whole[:4], cut
        assert (await outcome(*(raw[n : n + 1] for n in range(len(raw)))))[:4] == whole[:4]

    asyncio.run(all_cuts())


def test_seeds_have_the_outcomes_they_are_meant_to_have() -> None:
    outcomes = [run(raw) for raw in SEEDS]
    assert [(status, bool(fault), kept) for status, _, _, fault, kept in outcomes] == [
        (200, False, True),
        (200, False, True),
        (200, False, True),
        (200, False, True),
        (204, False, True),
        (200, False, False),
        (200, False, False),
        (200, False, False),
        (0, True, False),
        (200, True, False),
    ]


mutations = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["drop", "insert", "replace", "double"]),
        st.sampled_from(BITS),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SEEDS), mutations, st.lists(st.floats(0, 1), max_size=4))
def test_mutated_answers_end_in_a_reply_or_a_failure_and_cuts_still_change_nothing(
    raw: bytes, changes: list[tuple[float, str, bytes, int]], cuts: list[float]
) -> None:
    for where, how, bit, length in changes:
        at = int(where * len(raw))
        if how == "drop":
            raw = raw[:at] + raw[at + length :]
        elif how == "insert":
            raw = raw[:at] + bit + raw[at:]
        elif how == "replace":
            raw = raw[:at] + bit + raw[at + len(bit) :]
        else:
            raw = raw[: at + length] + raw[at:]
    places = sorted({0, len(raw), *(int(cut * len(raw)) for cut in cuts)})
    whole = run(raw)
    pieces = run(*(raw[a:b] for a, b in pairwise(places)))
    assert (pieces[:3], bool(pieces[3])) == (whole[:3], bool(whole[3]))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_noise_is_a_failure(chunks: list[bytes]) -> None:
    assert run(*chunks)[3]
