"""Parcels larger than a message: cut, put together again, and what happens when a piece is gone or somebody lies."""

import json
from collections.abc import AsyncIterator

import pytest
from stream_rigs import SEAL, Rig, fetched, jetstream_rig, nats_config, parcel

from fulcrum_adapters.jetstream import Connection, Seal
from fulcrum_adapters.jetstream.acks import Letter, Post
from fulcrum_adapters.jetstream.pieces import HEADER, cut
from fulcrum_mcp.errors import Invalid

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def rig(nats_url: str) -> AsyncIterator[Rig]:
    async with jetstream_rig(nats_url) as made:
        yield made


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[tuple[Connection, Post]]:
    made = Connection(nats_config(nats_url))
    post = Post(made)
    made.start()
    await made.ready()
    yield made, post
    await made.close()


async def kept(connection: Connection) -> int:
    info = await connection.api("STREAM.INFO.FULCRUM_PIECES")
    return int(info["state"]["messages"])


@pytest.mark.parametrize("max_payload", [65_536, 1 << 20])
def test_the_pieces_are_the_body_and_each_fits(max_payload: int) -> None:
    body = bytes(range(256)) * 20_000
    pieces, letter = cut("fulcrum.audit.acme", body, "w1:1-2", max_payload, SEAL)
    assert b"".join(piece.body for piece in pieces) == body
    assert max(len(piece.body) for piece in pieces) < max_payload
    assert len({piece.subject for piece in pieces}) == len(pieces)
    assert json.loads(letter.body)["size"] == len(body)
    again, same = cut("fulcrum.audit.acme", body, "w1:1-2", max_payload, SEAL)
    assert (again, same) == (pieces, letter)
    others, _ = cut("fulcrum.audit.acme", body, "w1:1-2", max_payload, Seal(bytes(32)))
    elsewhere, _ = cut("fulcrum.audit.acme", body, "w1:1-2", max_payload - 1, SEAL)
    assert not {piece.subject for piece in pieces} & {piece.subject for piece in [*others, *elsewhere]}


def test_what_is_too_large_even_in_pieces_is_refused_clearly() -> None:
    with pytest.raises(Invalid, match="max_payload"):
        cut("s", b"x" * 10_000, "n", 4_200, SEAL)


@pytest.mark.service
@pytest.mark.parts
async def test_stored_pieces_are_removed_and_others_stay(rig: Rig, connection: tuple[Connection, Post]) -> None:
    await rig.stream.publish([parcel(1, size=3_000_000), parcel(2, size=3_000_000)])
    first, second = await fetched(await rig.feed(), 2)
    before = await kept(connection[0])
    assert before >= 6
    await first.ack()
    assert await kept(connection[0]) == before // 2
    await second.ack()
    assert await kept(connection[0]) == 0


@pytest.mark.service
@pytest.mark.parts
async def test_when_a_piece_is_gone_what_spoke_of_it_is_delivered_for_a_dead_letter(
    rig: Rig, connection: tuple[Connection, Post]
) -> None:
    await rig.stream.publish([parcel(1, size=3_000_000)])
    await connection[0].api("STREAM.PURGE.FULCRUM_PIECES")
    (found,) = await fetched(await rig.feed(), 1)
    assert json.loads(found.body)["pieces"] >= 3


@pytest.mark.service
@pytest.mark.parts
@pytest.mark.parametrize(
    "lie",
    [
        b"no json",
        b"[]",
        b'{"parcel":"a.b","pieces":1}',
        b'{"parcel":"ab","pieces":1000000000}',
        b'{"parcel":"ab","pieces":-1,"sha256":"x"}',
        b'{"parcel":"ab","pieces":1}',
    ],
)
async def test_a_message_that_lies_about_its_pieces_is_delivered_as_it_is(
    rig: Rig, connection: tuple[Connection, Post], lie: bytes
) -> None:
    await connection[1].send([Letter("fulcrum.audit.acme", lie, "FULCRUM_AUDIT", None, {HEADER: "1"})])
    (found,) = await fetched(await rig.feed(), 1)
    assert found.body == lie
    await found.ack()
