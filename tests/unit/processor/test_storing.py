import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from audit_trails import calls, decided
from processor_doubles import Feed, SmallArchive, parcels_of, tenant_of, until
from structlog.testing import capture_logs

from fulcrum_mcp.core.frames import RECORD, frame
from fulcrum_mcp.errors import Invalid, Unavailable
from fulcrum_mcp.ports import ArchivedRecord, DeadLetter
from fulcrum_mcp.processor import parcels, storing
from fulcrum_mcp.processor.storing import Storer, StorerConfig

pytestmark = pytest.mark.anyio

FAST = StorerConfig(wait=0.01, linger=0.005, longest=0.02, aside=0.0)


@dataclass
class Running:
    """A storer that runs; leaving the block stops it."""

    feed: Feed = field(default_factory=Feed)
    archive: SmallArchive = field(default_factory=SmallArchive)
    config: StorerConfig = FAST

    async def __aenter__(self) -> Self:
        self.stopping = asyncio.Event()
        self.storer = Storer(self.feed, self.archive, tenant_of, self.config)
        self.task = asyncio.get_running_loop().create_task(self.storer.run(self.stopping))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping.set()
        async with asyncio.timeout(10):
            await self.task

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(lambda: condition() or self.task.done())
        assert not self.task.done(), self.task

    async def drained(self) -> None:
        await self.until(lambda: not self.feed.waiting)


async def test_what_comes_is_stored_with_its_inputs_and_acknowledged() -> None:
    feed = Feed()
    feed.publish(parcels_of("w", [calls(3), calls(2, tenant="acme")]))
    async with Running(feed) as running:
        await running.drained()
    assert sorted(running.archive.rows) == sorted(
        [("w.default", seq) for seq in range(1, 7)] + [("w.acme", seq) for seq in range(1, 5)]
    )
    assert len(running.archive.inputs) == 5
    assert running.archive.tenants == {"default", "acme"}
    assert (running.storer.stored, running.storer.letters, running.archive.letters) == (10, 0, [])
    assert running.storer.newest == max(row.time for row in running.archive.rows.values())
    assert running.storer.oldest() is None


async def test_nothing_is_acknowledged_before_it_is_committed() -> None:
    feed, archive = Feed(), SmallArchive()
    archive.fail = [*[Unavailable("Postgres is down")] * 3, RuntimeError("a bug")]
    feed.publish(parcels_of("w", [calls(2)]))
    with capture_logs() as logs:
        async with Running(feed, archive) as running:
            await running.until(lambda: running.storer.archive_fault is not None)
            assert len(feed.waiting) == 1
            assert archive.rows == {}
            assert running.storer.oldest() is not None
            await running.drained()
            await running.until(lambda: running.storer.archive_fault is None)
    assert len(archive.rows) == 4
    assert [entry["reason"] for entry in logs if entry["event"] == "audit.store.waits"] == [
        "Postgres is down",
        "RuntimeError, see the log",
    ]


async def test_while_the_archive_is_down_no_more_is_held_than_four_batches() -> None:
    feed, archive = Feed(), SmallArchive()
    archive.fail = [Unavailable("Postgres is down")] * 1_000_000
    feed.publish(parcels_of("w", [calls(1) for _ in range(400)]))
    async with Running(feed, archive, StorerConfig(deliveries=10, wait=0.01, linger=0.005, longest=0.01)) as running:
        await running.until(lambda: len(archive.fail) < 999_990)
        assert len(feed.out) <= 40
        archive.fail = []
        await running.drained()
    assert len(archive.rows) == 800


class Meeting(SmallArchive):
    """An archive in which every batch waits until another one is being stored too."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(2, timeout=10)

    def store(
        self, records: Sequence[ArchivedRecord], inputs: Sequence[tuple[str, str, int, bytes]]
    ) -> list[DeadLetter]:
        self.barrier.wait()
        return super().store(records, inputs)


async def test_a_batch_is_stored_while_another_one_is() -> None:
    feed = Feed()
    feed.publish(parcels_of("w", [calls(1) for _ in range(4)]))
    async with Running(feed, Meeting(), StorerConfig(deliveries=1, wait=0.01, linger=0.005, longest=0.02)) as running:
        await running.drained()
        assert running.storer.archive_fault is None
    assert len(running.archive.rows) == running.storer.stored == 8


async def test_large_parcels_are_fetched_in_small_numbers() -> None:
    feed = Feed()
    for number in range(40):
        draft = decided(f"call_{number}", tenant="acme")
        line = parcels_of(f"w{number}", [[draft]])[0].body
        feed.put("audit/acme", line + b"\0" * 10_000)
    async with Running(feed, config=StorerConfig(wait=0.01, linger=0.005, longest=0.02, batch_bytes=20_000)) as running:
        await running.drained()
        assert running.storer._most == 1
    assert len(running.archive.rows) == 40


async def test_what_trickles_in_is_stored_in_few_transactions_and_none_late() -> None:
    feed = Feed()
    trickle = parcels_of("w", [calls(1) for _ in range(60)])
    loop = asyncio.get_running_loop()
    async with Running(feed, config=StorerConfig(wait=0.01, linger=0.1)) as running:
        began = loop.time()
        for parcel in trickle:
            feed.publish([parcel])
            await asyncio.sleep(0.005)
        lasted = loop.time() - began
        await running.drained()
    assert len(running.archive.rows) == 120
    assert 1 < running.archive.stores <= lasted / 0.1 + 3


async def test_deliveries_that_come_again_are_stored_once() -> None:
    feed = Feed()
    feed.publish(parcels_of("w", [calls(1) for _ in range(50)]))
    feed.lose = set(feed.waiting)
    async with Running(feed) as running:
        await running.until(lambda: len(running.archive.rows) == 100 and not feed.lose)
        feed.redeliver()
        await running.drained()
    assert len(running.archive.rows) == 100
    assert running.archive.letters == []


async def test_what_cannot_be_read_is_kept_whole_and_goes_and_the_rest_is_stored() -> None:
    feed = Feed()
    good = parcels_of("w", [calls(2)])[0].body
    for body in (b"noise", good + b"\xff" * 30, b""):
        feed.put("audit/default", body)
    feed.put("elsewhere", good)
    feed.put("audit/other", good)
    with capture_logs() as logs:
        async with Running(feed) as running:
            await running.drained()
    archive = running.archive
    assert len(archive.rows) == 4
    bodies = {letter.body for letter in archive.letters}
    assert {b"noise", good + b"\xff" * 30, b"", good} <= bodies
    assert running.storer.letters >= 5
    assert any(entry["event"] == "audit.dead_letter" for entry in logs)
    assert "arguments" not in str(logs)


async def test_a_record_whose_place_is_taken_is_a_dead_letter_and_the_first_stays() -> None:
    feed = Feed()
    one, two = parcels_of("w", [calls(1)])[0], parcels_of("w", [calls(1)])[0]
    feed.publish([one])
    async with Running(feed) as running:
        await running.drained()
        feed.publish([two])
        await running.drained()
    assert len(running.archive.rows) == 2
    assert len(running.archive.letters) == 2
    assert running.storer.letters == 2


class Choosy(SmallArchive):
    """Refuses records of one agent for what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.refuses_all = False

    def store(
        self, records: Sequence[ArchivedRecord], inputs: Sequence[tuple[str, str, int, bytes]]
    ) -> list[DeadLetter]:
        self.asked += 1
        if self.refuses_all or any(record.agent == "odd" for record in records):
            raise Invalid("this cannot be stored")
        return super().store(records, inputs)


async def test_a_record_that_the_archive_refuses_keeps_no_other_out() -> None:
    feed, archive = Feed(), Choosy()
    odd = [decided("call_odd", agent="odd")]
    feed.publish(parcels_of("w", [calls(8), odd, calls(8)]))
    async with Running(feed, archive) as running:
        await running.until(lambda: len(archive.rows) == 32)
        feed.publish(parcels_of("v", [calls(1)]))  # it takes others: so it is that record
        await running.drained()
    assert len(archive.rows) == 34
    assert ["the archive refuses it" in letter.what for letter in archive.letters] == [True]
    assert running.storer.archive_fault is None


async def test_an_archive_that_refuses_everything_gets_nothing_buried() -> None:
    """It is then not the records: a schema that is not ready must not turn a trail into dead letters."""
    feed, archive = Feed(), Choosy()
    archive.refuses_all = True
    feed.publish(parcels_of("w", [calls(10) for _ in range(20)]))
    async with Running(feed, archive) as running:
        await running.until(lambda: len(feed.given_back) >= 20)
        assert archive.letters == []
        assert len(feed.waiting) == 20
        assert running.storer.archive_fault is not None
        archive.refuses_all = False
        await running.drained()
        await running.until(lambda: running.storer.archive_fault is None)
    assert len(archive.rows) == 400
    assert archive.letters == []


async def test_what_is_refused_from_one_moment_on_is_not_buried_because_others_were_taken_before() -> None:
    feed, archive = Feed(), Choosy()
    async with Running(feed, archive) as running:
        feed.publish(parcels_of("v", [calls(5)]))
        await running.drained()
        archive.refuses_all = True
        feed.publish(parcels_of("w", [calls(10) for _ in range(5)]))
        await running.until(lambda: len(feed.given_back) >= 20)
        assert archive.letters == []
        archive.refuses_all = False
        await running.drained()
        await running.until(lambda: running.storer.archive_fault is None)
    assert len(archive.rows) == 110
    assert archive.letters == []


async def test_stopping_gives_back_what_could_not_be_stored() -> None:
    feed, archive = Feed(), SmallArchive()
    archive.fail = [Unavailable("down")] * 1_000_000
    feed.publish(parcels_of("w", [calls(1) for _ in range(5)]))
    async with Running(feed, archive) as running:
        await running.until(lambda: len(feed.out) >= 1)
    assert len(feed.waiting) == 5
    assert feed.out == set()
    assert {delay for _, delay in feed.given_back} == {0}


async def test_a_stream_that_is_down_is_said_and_asked_again() -> None:
    feed = Feed(down=True)
    feed.publish(parcels_of("w", [calls(1)]))
    async with Running(feed) as running:
        await running.until(lambda: running.storer.feed_fault == "NATS is down")
        feed.down = False
        await running.drained()
        assert running.storer.feed_fault is None


async def test_a_hostile_parcel_with_many_faults_fills_no_log() -> None:
    feed = Feed()
    feed.put("audit/default", b"".join(frame(RECORD, b"x%d" % number) for number in range(500)))
    with capture_logs() as logs:
        async with Running(feed) as running:
            await running.drained()
    assert running.storer.letters == 500
    assert len(logs) < 20


async def test_a_parcel_that_breaks_its_reader_is_a_dead_letter_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(subject: str, tenant: str | None, body: bytes, now: int) -> Any:
        if b"odd" in body:
            raise MemoryError
        return parcels.unpack(subject, tenant, body, now)

    monkeypatch.setattr(storing, "unpack", unpack)
    feed = Feed()
    good = parcels_of("w", [calls(2)])
    odd = parcels_of("v", [[decided("call_odd", agent="odd")]])
    feed.publish([*odd, *good])
    async with Running(feed) as running:
        await running.drained()
    assert len(running.archive.rows) == 4
    assert [letter.body for letter in running.archive.letters] == [odd[0].body]


async def test_what_nobody_of_ours_has_sent_is_kept_whole_and_none_of_it_is_stored() -> None:
    feed = Feed()
    (good,) = parcels_of("w", [calls(2)])
    (chain_of_its_own,) = parcels_of("forged", [calls(3)])
    feed.publish([good])
    feed.forged[feed.put("audit/default", chain_of_its_own.body)] = "not ours"
    async with Running(feed) as running:
        await running.drained()
    assert {chain for chain, _ in running.archive.rows} == {"w.default"}
    assert running.archive.letters == [DeadLetter("audit/default", "not ours", chain_of_its_own.body)]
    assert running.storer.letters == 1


async def test_a_flood_of_dead_letters_is_kept_and_does_not_flood_the_log() -> None:
    feed = Feed()
    for number in range(300):
        feed.forged[feed.put("audit/default", b"%d" % number)] = "not ours"
    with capture_logs() as logs:
        async with Running(feed, config=StorerConfig(deliveries=7, wait=0.01)) as running:
            await running.drained()
    assert running.storer.letters == len(running.archive.letters) == 300
    assert [entry["event"] for entry in logs] == ["audit.dead_letter"] * 10 + ["audit.dead_letters"]
