"""An attacker who may publish to NATS, and hear all of it, but has no key: nothing stops, nothing false is believed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from audit_trails import calls
from processor_doubles import SmallArchive, parcels_of
from record_taker import Written, open_spool, write_calls
from servers.nats import NatsServer
from stream_rigs import SEAL, eventually, fetched, nats_config, parcel
from structlog.testing import capture_logs

from fulcrum_adapters.jetstream import (
    Connection,
    JetStreamAuditFeed,
    JetStreamAuditStream,
    JetStreamConfigFeed,
    JetStreamView,
    Seal,
    feed,
    tenant_of,
)
from fulcrum_adapters.jetstream.connection import Msg
from fulcrum_adapters.jetstream.pieces import HEADER, LOST
from fulcrum_adapters.jetstream.seal import NOT_OURS
from fulcrum_adapters.jetstream.stream import Letters
from fulcrum_adapters.jetstream.streams import ensure_streams
from fulcrum_adapters.jetstream.subjects import CONFIG, audit_subject, stored_subject
from fulcrum_adapters.spool import FileLeadership, SpoolReader
from fulcrum_mcp.gateway.courier import Courier, CourierConfig
from fulcrum_mcp.ports import Delivery, Parcel
from fulcrum_mcp.processor.storing import Storer, StorerConfig

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]

DEEP = b"[" * 200_000
REVISIONS = [
    DEEP,
    b'{"revision":' + DEEP,
    b'{"revision":' + b"9" * 4000 + b"}",
    b'{"revision":99999999999999999999}',
    b'{"revision":-5}',
    b'{"revision":true}',
    b'{"revision":"7"}',
    b'{"revision":1e999}',
    b"\xff\xfe",
    b"",
]
PIECES = [
    DEEP,
    b'{"parcel":"a","pieces":true,"sha256":""}',
    b'{"parcel":"a","pieces":3,"sha256":' + DEEP,
    b'{"parcel":"a","pieces":9e99}',
    b'{"parcel":"a.*","pieces":1}',
    json.dumps({"parcel": "a" * 100_000, "pieces": 3}).encode(),
    b"null",
    b"[1]",
]
OTHER_KEY = Seal(b"the key of somebody else altogether")
SEALED = "Fulcrum-Seal"
LARGE = 3_000_000
T = TypeVar("T")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    """A gateway, a processor and an attacker on one NATS."""

    def __init__(self, stack: AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url
        self.archive = SmallArchive()
        self.heard: list[Msg] = []
        """What the attacker has overheard."""

    async def connected(self, name: str, make: Callable[[Connection], T]) -> T:
        """What is made on a connection, once it is connected."""
        connection = Connection(nats_config(self._url, 5.0), name)
        self._stack.push_async_callback(connection.close)
        made = make(connection)
        connection.start()
        await connection.ready()
        return made

    async def open(self) -> None:
        self.attacker = await self.connected("attacker", lambda connection: connection)
        await ensure_streams(self.attacker)
        await self.attacker.client.subscribe("fulcrum.>", cb=self._overhear)
        await self.attacker.client.flush()

    async def _overhear(self, message: Msg) -> None:
        self.heard.append(message)

    async def gateway(self, seal: Seal = SEAL) -> JetStreamAuditStream:
        return await self.connected("gateway", lambda connection: JetStreamAuditStream(connection, seal))

    async def feed(self, seal: Seal = SEAL) -> JetStreamAuditFeed:
        made = await self.connected("processor", lambda connection: JetStreamAuditFeed(connection, seal))
        await made.prepare()
        return made

    async def view(self) -> JetStreamView:
        return await self.connected("reconcile", lambda connection: JetStreamView(connection, SEAL))

    async def say(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """What the attacker says, and what the stream answers."""
        answer = await self.attacker.client.request(subject, body, headers=dict(headers or {}), timeout=5)
        return answer.data

    async def stored(self, number: int, seal: Seal = SEAL) -> Storer:
        """A processor at work until so many messages were taken, and none is left."""
        source, stopping = await self.feed(seal), asyncio.Event()
        storer = Storer(source, self.archive, tenant_of, StorerConfig(wait=0.05))
        running = asyncio.create_task(storer.run(stopping))

        async def all_taken() -> bool:
            return await source.lag() == (0, 0) and storer.stored + storer.letters >= number

        await eventually(all_taken)
        stopping.set()
        await running
        return storer


@pytest.fixture
async def place(own_nats: NatsServer) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        made = Place(stack, own_nats.url)
        await made.open()
        yield made


def overheard(place: Place, sent: Parcel) -> Msg:
    return next(message for message in place.heard if message.data == sent.body)


@pytest.mark.parametrize("forged", REVISIONS, ids=range(len(REVISIONS)))
async def test_a_forged_revision_neither_counts_nor_keeps_a_replica_from_nats(place: Place, forged: bytes) -> None:
    """A revision is a hint to look into the store, so it has no seal."""
    assert b"error" not in await place.say(CONFIG, forged)
    replica = await place.connected("replica", JetStreamConfigFeed)  # it reads the key before it counts as connected
    watching = replica.watch()
    first = asyncio.ensure_future(anext(watching))
    await replica.announce(8, "")
    async with asyncio.timeout(10):
        assert await first == 8
    await replica.close()


async def test_a_message_that_speaks_of_no_parcel_holds_up_no_other(place: Place) -> None:
    source = await place.feed()
    for forged in PIECES:
        await place.say("fulcrum.audit.t", forged, {HEADER: "3"})
    await (await place.gateway()).publish([parcel(1, tenant="t")])
    found = await fetched(source, len(PIECES) + 1, 20)
    assert [delivery.body for delivery in found] == [*PIECES, parcel(1, tenant="t").body]
    assert [delivery.fault for delivery in found] == [NOT_OURS] * len(PIECES) + [None]
    for delivery in found:
        await delivery.ack()

    async def nothing_left() -> bool:
        return await source.lag() == (0, 0)

    await eventually(nothing_left)


async def test_a_forged_confirmation_lets_no_record_go(place: Place, tmp_path: Path) -> None:
    stream = await place.gateway()
    with open_spool(tmp_path / "spool") as spool:
        written = Written()
        write_calls(spool, written, 20)
        courier = Courier(
            SpoolReader(tmp_path / "spool", tmp_path / "aside"),
            stream,
            FileLeadership(tmp_path / "courier.lock"),
            CourierConfig(linger=0.005, idle=0.02, resend_after=3600.0, tidy_every=0.05),
        )
        courier.start()
        await eventually(lambda: courier.lag().records == len(written.refs))
        chain, last = written.refs[-1].chain, written.refs[-1].seq
        source = await place.feed()
        await source.confirm({"w9.other": last, chain: 1})
        await eventually(lambda: courier._stored == {"w9.other": last, chain: 1})
        genuine = {message.subject: dict(message.headers or {}) for message in place.heard}
        forgeries: list[Mapping[str, str]] = [
            {},
            {SEALED: ""},
            {SEALED: "0" * 64},
            {SEALED: OTHER_KEY.stored(chain, last)},
            {SEALED: genuine[stored_subject("w9.other")][SEALED]},
            {SEALED: genuine[stored_subject(chain)][SEALED]},
        ]
        with capture_logs() as logs:
            for headers in forgeries * 20:
                await place.say(stored_subject(chain), b"%d" % last, headers)
            await place.say("fulcrum.stored.no=token", b"1")
            await place.say(stored_subject(chain), b"9" * 5000)
            await eventually(lambda: stream.ignored >= len(forgeries) * 20 + 2)
            asked_again = dict(await stream.stored())
        assert asked_again == {"w9.other": last}, "a forgery covers the last word, and is none itself"
        assert [entry["event"] for entry in logs] == ["a confirmation is not believed"]
        assert courier.lag().records == len(written.refs)
        before = sorted((tmp_path / "spool").rglob("*"))
        await place.say(stored_subject(chain), b"1", genuine[stored_subject(chain)])  # what was true, once more
        await eventually(lambda: courier._stored == {"w9.other": last, chain: 1})
        assert sorted((tmp_path / "spool").rglob("*")) == before
        await source.confirm({chain: last})
        await eventually(lambda: courier.lag().records == 0)
        await courier.close(1.0)


async def test_a_forged_chain_and_one_that_goes_on_another_s_are_never_records(place: Place) -> None:
    own = parcels_of("w1", [calls(2)])
    forged = [*parcels_of("forged", [calls(3)]), *parcels_of("w1", [calls(2), calls(1)])[1:]]
    await (await place.gateway()).publish(own)
    for number, item in enumerate(forged):
        name = f"{item.chain}:{item.first}-{item.last}"
        tail = OTHER_KEY.letter(audit_subject(item.tenant), name, item.body)
        headers = {SEALED: tail, "Nats-Msg-Id": f"{name}:{tail[:16]}"} if number else {}
        assert b"error" not in await place.say(audit_subject(item.tenant), item.body, headers)
    view = await place.view()
    seen = [(each.body, each.fault) async for each in view.parcels()]
    assert seen == [(own[0].body, None), *((item.body, NOT_OURS) for item in forged)]
    storer = await place.stored(4 + len(forged))
    assert set(place.archive.rows) == {("w1.default", seq) for seq in range(1, 5)}
    assert sorted(letter.body for letter in place.archive.letters) == sorted(item.body for item in forged)
    assert {letter.what for letter in place.archive.letters} == {NOT_OURS}
    assert "FULCRUM_AUDIT_MAC_KEY" in NOT_OURS
    assert (storer.stored, storer.letters) == (4, len(forged))


async def test_a_genuine_parcel_that_was_changed_is_a_dead_letter_and_the_genuine_one_is_stored(place: Place) -> None:
    (sent,) = parcels_of("w1", [calls(2)])
    await (await place.gateway()).publish([sent])
    await eventually(lambda: len(place.heard) >= 1)
    message = overheard(place, sent)
    headers = {name: value for name, value in (message.headers or {}).items() if name != "Nats-Expected-Stream"}
    changed = sent.body.replace(b"default", b"defaulT")
    assert changed != sent.body
    name = headers.pop("Nats-Msg-Id")
    forged = [
        (message.subject, changed, headers),
        (message.subject, changed, headers | {"Nats-Msg-Id": f"{name}0"}),
        (message.subject, sent.body, headers | {"Nats-Msg-Id": f"1{name}"}),
        (message.subject, sent.body, headers | {"Nats-Msg-Id": "x", HEADER: "1"}),
        ("fulcrum.audit.acme", sent.body, headers | {"Nats-Msg-Id": f"{name}1"}),
    ]
    for subject, body, told in forged:
        assert b"duplicate" not in await place.say(subject, body, told)
    await place.stored(4 + len(forged))
    assert len(place.archive.rows) == 4
    assert {(letter.source, letter.body) for letter in place.archive.letters} == {each[:2] for each in forged}


async def test_a_parcel_that_is_said_again_is_stored_once(place: Place) -> None:
    (sent,) = parcels_of("w1", [calls(2)])
    await (await place.gateway()).publish([sent])
    await eventually(lambda: len(place.heard) >= 1)
    message = overheard(place, sent)
    headers = dict(message.headers or {})
    assert b"duplicate" in await place.say(message.subject, sent.body, headers)
    await place.stored(4)
    await place.attacker.api("STREAM.DELETE.FULCRUM_AUDIT")  # as if long ago: nobody knows its name any more
    await ensure_streams(place.attacker)
    assert b"duplicate" not in await place.say(message.subject, sent.body, headers)
    storer = await place.stored(4)
    assert (storer.stored, storer.letters, len(place.archive.rows), place.archive.letters) == (4, 0, 4, [])


async def test_a_name_that_somebody_took_in_advance_keeps_no_parcel_out(place: Place) -> None:
    """Else the stream would take what the gateway sends for a duplicate, and acknowledge what it does not keep."""
    (sent,) = parcels_of("w1", [calls(2)])
    for name in ("w1=2Edefault:1-4", "w1.default:1-4", "w1=2Edefault:1-4:", f"w1=2Edefault:1-4:{'0' * 16}"):
        await place.say("fulcrum.audit.default", b"junk " + name.encode(), {"Nats-Msg-Id": name})
    await (await place.gateway()).publish([sent])
    await place.stored(8)
    assert len(place.archive.rows) == 4
    assert len(place.archive.letters) == 4


async def piece_subjects(place: Place) -> list[str]:
    await eventually(lambda: any(message.subject.startswith("fulcrum.audit.") for message in place.heard))
    return [message.subject for message in place.heard if message.subject.startswith("fulcrum.pieces.")]


async def test_pieces_that_somebody_puts_over_ours_change_nothing(place: Place) -> None:
    sent = parcel(1, size=LARGE)
    await (await place.gateway()).publish([sent])
    for subject in await piece_subjects(place):
        assert b"error" not in await place.say(subject, b"junk")
    (found,) = await fetched(await place.feed(), 1)
    assert (found.body == sent.body, found.fault) == (True, None)


async def test_who_has_seen_some_pieces_cannot_be_at_the_others_before_us(place: Place) -> None:
    """As quick as can be: every message of the parcel, and whatever it may be called, is there before ours is sent."""
    sent = parcel(1, size=LARGE)
    stream, source = await place.gateway(), await place.feed()
    first, then = await stream.sealed([sent])
    parcel_token, piece = first[0].subject.split(".")[-2:]
    guesses = [str(number) for number in range(len(first))] + [piece, f"{piece}1"]
    for guess in guesses:
        subject = f"fulcrum.pieces.{parcel_token}.{guess}"
        if guess != piece:  # that one he has only seen because it was there
            await place.say(subject, b"junk", {"Nats-Msg-Id": guess})
            await place.say(subject, b"junk", {"Nats-Msg-Id": f"{parcel_token}/{guess}"})
    await stream.send(Letters(first, then))
    (found,) = await fetched(source, 1)
    assert (found.fault, found.body == sent.body) == (None, True)


async def test_a_large_parcel_under_another_key_is_kept_whole(place: Place) -> None:
    sent = parcel(1, size=LARGE)
    source = await place.feed()
    await (await place.gateway(OTHER_KEY)).publish([sent])
    (found,) = await fetched(source, 1)
    assert (found.fault, found.body == sent.body) == (NOT_OURS, True)
    seen = [each async for each in (await place.view()).parcels()]
    assert [(each.fault, each.body == sent.body) for each in seen] == [(NOT_OURS, True)]


async def test_a_message_of_others_that_names_our_pieces_takes_none_of_them(place: Place) -> None:
    sent = parcel(1, size=LARGE)
    stream, source = await place.gateway(), await place.feed()
    await stream.publish([sent])
    await eventually(lambda: any(message.subject == "fulcrum.audit.acme" for message in place.heard))
    (told,) = [message.data for message in place.heard if message.subject == "fulcrum.audit.acme"]
    (genuine,) = await fetched(source, 1)
    await place.say("fulcrum.audit.other", told, {HEADER: "3"})
    (forged,) = await fetched(source, 1)
    assert (forged.fault, forged.body == sent.body) == (NOT_OURS, True), "kept whole, and not believed"
    await forged.ack()
    await genuine.again(0.05)
    (again,) = await fetched(source, 1)
    assert (again.fault, again.body == sent.body) == (None, True)


async def test_a_parcel_whose_pieces_were_removed_or_shifted_is_not_believed(place: Place) -> None:
    stream, source = await place.gateway(), await place.feed()
    await stream.publish([parcel(1, size=LARGE)])
    subject = (await piece_subjects(place))[1]
    await place.attacker.api("STREAM.PURGE.FULCRUM_PIECES", {"filter": subject})
    await place.say(subject, b"x" * 1000)
    (found,) = await fetched(source, 1)
    assert found.fault == LOST
    assert json.loads(found.body)["pieces"] >= 3
    view = await place.view()
    assert [each.fault async for each in view.parcels()] == [LOST]


async def test_many_messages_that_name_large_pieces_do_not_fill_the_memory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_MOST_COLLECTED", LARGE)
    stream, source = await place.gateway(), await place.feed()
    await stream.publish([parcel(1, size=LARGE)])
    await eventually(lambda: any(message.subject == "fulcrum.audit.acme" for message in place.heard))
    (told,) = [message.data for message in place.heard if message.subject == "fulcrum.audit.acme"]
    for number in range(10):
        await place.say(f"fulcrum.audit.t{number}", told, {HEADER: "3"})
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(found) < 11:
            some = await source.fetch(64, 0.5)
            assert len(some) <= 2
            found += some
    assert [delivery.fault for delivery in found].count(None) == 1


async def test_what_was_sealed_with_another_key_is_kept_whole_and_the_remedy_is_said(place: Place) -> None:
    sent = parcels_of("w1", [calls(2), calls(1)])
    stream = await place.gateway(OTHER_KEY)
    told: list[str] = []
    stream.watch(lambda chain, _: told.append(chain))
    await stream.publish(sent)
    with capture_logs() as logs:
        await place.stored(2)
    assert place.archive.rows == {}
    assert sorted(letter.body for letter in place.archive.letters) == sorted(item.body for item in sent)
    assert all("FULCRUM_AUDIT_MAC_KEY" in entry["what"] for entry in logs if entry["event"] == "audit.dead_letter")
    assert stream.ignored == 0
    await (await place.feed()).confirm({"w1.default": 6})
    await eventually(lambda: stream.ignored == 1)
    assert (dict(await stream.stored()), told) == ({}, [])
