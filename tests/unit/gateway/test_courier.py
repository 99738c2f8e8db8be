"""The courier over a real spool and a stream in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from record_taker import Taker, Written, faults_of, open_spool, write_calls
from stream_rigs import eventually
from structlog.testing import capture_logs

from fulcrum_adapters.memory.audit import MemoryLeadership
from fulcrum_adapters.memory.stream import MemoryAuditFeed, MemoryAuditStream, MemoryBroker
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolReader
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.gateway.complaint import Complaint
from fulcrum_mcp.gateway.courier import Courier, CourierConfig
from fulcrum_mcp.gateway.parcels import Packer
from fulcrum_mcp.gateway.under_way import Mark, Writer
from fulcrum_mcp.ports import Leadership

pytestmark = pytest.mark.anyio

QUICK = CourierConfig(
    linger=0.002, idle=0.01, resend_after=0.3, gap_after=0.3, tidy_every=0.05, standby=0.02, breath=0.0
)


@dataclass
class Host:
    root: Path
    broker: MemoryBroker
    spool: Spool
    written: Written
    taker: Taker

    def courier(
        self, config: CourierConfig = QUICK, leadership: Leadership | None = None, chunk: int = 256 << 10
    ) -> Courier:
        source = SpoolReader(self.root / "spool", self.root / "aside", chunk)
        return Courier(source, MemoryAuditStream(self.broker), leadership or MemoryLeadership(), config)

    def segments(self) -> int:
        return len(list((self.root / "spool" / self.spool.writer).glob("*.seg")))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    broker = MemoryBroker()
    with open_spool(tmp_path / "spool", segment_bytes=8192, max_bytes=1 << 20) as spool:
        yield Host(tmp_path, broker, spool, Written(), Taker(MemoryAuditFeed(broker)))


@asynccontextmanager
async def running(courier: Courier) -> AsyncIterator[Courier]:
    courier.start()
    try:
        yield courier
    finally:
        await courier.close(0.5)


async def taking(taker: Taker, true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Take until something is true."""
    async with asyncio.timeout(seconds):
        while not true():
            await taker.step(0.005)


async def test_everything_is_carried_with_its_inputs_and_leaves_the_spool_once_confirmed(host: Host) -> None:
    async with running(host.courier()) as courier:
        for _ in range(20):
            write_calls(host.spool, host.written, 4, ["default", "other"])
        await host.taker.until(host.written)
        await taking(host.taker, lambda: courier.lag().records == 0 and host.segments() == 1)
        assert courier.faults == []
        assert courier.failing is None


@pytest.mark.parametrize("chunk", [100, 700, 1500, 4000])
async def test_inputs_stay_with_their_record_wherever_a_piece_ends(host: Host, chunk: int) -> None:
    for number in range(1, 6):
        write_calls(host.spool, host.written, number)
    async with running(host.courier(chunk=chunk)):
        await host.taker.until(host.written)
    assert faults_of(host.written, host.taker) == []


async def test_nothing_leaves_the_spool_that_nobody_has_confirmed(host: Host) -> None:
    host.taker.confirms = False
    write_calls(host.spool, host.written, 40)
    for _ in range(3):
        write_calls(host.spool, host.written, 10)
    before = host.segments()
    async with running(host.courier(replace(QUICK, resend_after=60.0))) as courier:
        await host.taker.until(host.written)
        await asyncio.sleep(0.2)
        assert (host.segments(), courier.lag().records) == (before, len(host.written.refs))
        assert courier.lag().seconds > 0
        await host.taker.confirm_again()
        await taking(host.taker, lambda: host.segments() == 1)


async def test_a_courier_begins_behind_what_is_stored(host: Host) -> None:
    write_calls(host.spool, host.written, 10)
    async with running(host.courier()):
        await host.taker.until(host.written)
    seen = host.taker.deliveries
    async with running(host.courier()) as again:
        write_calls(host.spool, host.written, 1)
        await host.taker.until(host.written)
        await taking(host.taker, lambda: again.lag().records == 0)
    assert host.taker.deliveries == seen + 1


async def test_what_the_stream_has_lost_is_sent_again_under_another_name(host: Host) -> None:
    async with running(host.courier()) as courier:
        write_calls(host.spool, host.written, 5)
        await eventually(lambda: bool(host.broker.ready))
        host.broker.ready.clear()
        write_calls(host.spool, host.written, 5)
        await host.taker.until(host.written)
        assert courier.resent > 0
        assert {place[3] > 0 for place in host.broker.seen} == {False, True}


async def test_the_checker_catches_a_planted_loss_and_a_planted_double(host: Host) -> None:
    async with running(host.courier()):
        write_calls(host.spool, host.written, 3)
        await host.taker.until(host.written)
    lost = host.taker.kept.pop(host.written.refs[2].id)
    assert faults_of(host.written, host.taker) == [f"record {host.written.refs[2].id} is missing"]
    host.taker.kept[host.written.refs[2].id] = lost
    host.taker.kept["another"] = lost
    assert len(faults_of(host.written, host.taker)) == 2


async def test_what_waits_in_the_stream_is_not_sent_again(host: Host) -> None:
    async with running(host.courier(replace(QUICK, resend_after=0.05))) as courier:
        write_calls(host.spool, host.written, 5)
        await eventually(lambda: bool(host.broker.ready))
        await asyncio.sleep(0.4)
        assert courier.resent == 0
        await host.taker.until(host.written)


async def test_while_the_stream_is_down_the_spool_keeps_and_it_is_said(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrying = host.courier(chunk=700)
    monkeypatch.setattr(carrying, "_complaint", Complaint(patience=0.0))
    with capture_logs() as logs:
        await _down_and_up_again(host, carrying)
    said = [each["event"] for each in logs]
    assert (said[0], said[-1]) == ("records are not carried", "records are carried again")


async def _down_and_up_again(host: Host, carrying: Courier) -> None:
    async with running(carrying) as courier:
        write_calls(host.spool, host.written, 2)
        await host.taker.until(host.written)
        host.broker.down = True
        for _ in range(3):
            write_calls(host.spool, host.written, 3)
        await eventually(lambda: courier.failing is not None)
        host.broker.down = False
        await host.taker.until(host.written)
        await eventually(lambda: courier.failing is None)


async def test_only_one_carries_and_another_takes_over(host: Host) -> None:
    lock = host.root / "courier.lock"
    first = host.courier(leadership=FileLeadership(lock))
    second = host.courier(leadership=FileLeadership(lock))
    async with running(first), running(second):
        write_calls(host.spool, host.written, 5)
        await host.taker.until(host.written)
        assert [first.leading, second.leading] == [True, False]
        await first.close(0.5)
        write_calls(host.spool, host.written, 5)
        await host.taker.until(host.written)
        assert second.leading


async def test_what_is_damaged_is_kept_aside_and_the_rest_is_carried(host: Host) -> None:
    write_calls(host.spool, host.written, 5)
    write_calls(host.spool, host.written, 30, ["other"])
    path = host.root / "spool" / host.spool.writer / "00000001.seg"
    raw = bytearray(path.read_bytes())
    where = raw.index(host.written.refs[3].id.encode())
    raw[where] ^= 1
    path.write_bytes(raw)
    lost = host.written.refs.pop(3)
    host.written.inputs.pop(lost.id, None)
    async with running(host.courier()) as courier:
        await host.taker.until(host.written)
        async with asyncio.timeout(10):
            while courier.lag().records:
                await host.taker.step(0.005)
                await host.taker.confirm_again()
        assert any("damaged" in fault for fault in courier.faults)
        write_calls(host.spool, host.written, 40)
        await host.taker.until(host.written)
        async with asyncio.timeout(10):
            while not (host.root / "aside").is_dir():
                await host.taker.step(0.005)
                await host.taker.confirm_again()
    kept = next((host.root / "aside").glob("*.seg")).read_bytes()
    assert kept == bytes(raw)


async def test_records_that_are_taken_and_never_confirmed_are_kept_aside_and_hold_up_nobody(host: Host) -> None:
    feed = MemoryAuditFeed(host.broker)
    write_calls(host.spool, host.written, 30)
    config = replace(QUICK, resend_after=0.02, doubt_after=0.02, gap_after=0.2, most_tries=3)
    async with running(host.courier(config)) as courier:
        async with asyncio.timeout(10):
            while courier.lag().records or not courier.faults:
                for delivery in await feed.fetch(64, 0.005):
                    await delivery.ack()
                await feed.confirm({"w9.elsewhere": 1})
        assert "do not confirm" in courier.faults[0]
        assert not host.taker.kept
        write_calls(host.spool, host.written, 20)
        await feed.confirm({ref.chain: ref.seq for ref in host.written.refs})
        await eventually((host.root / "aside").is_dir)
    assert host.written.refs[0].id.encode() in next((host.root / "aside").glob("*.seg")).read_bytes()


@pytest.mark.parametrize("chunk", [100, 700, 1500, 2000])
async def test_the_window_bounds_what_is_under_way(host: Host, chunk: int) -> None:
    host.taker.confirms = False
    async with running(host.courier(replace(QUICK, window=4096, resend_after=60.0), chunk=chunk)) as courier:
        for _ in range(20):
            write_calls(host.spool, host.written, 2)
        await taking(host.taker, lambda: len(host.taker.kept) >= 4)
        await asyncio.sleep(0.1)
        assert courier.lag().size < 4096 + 4 * 2000
        host.taker.confirms = True
        await host.taker.confirm_again()
        await host.taker.until(host.written)


async def test_a_record_larger_than_a_parcel_travels_alone(host: Host) -> None:
    small = replace(QUICK, parcel=1000)
    write_calls(host.spool, host.written, 3)
    big = RecordDraft("big", "default", "dev.fulcrum.policy.changed", "p", 1, b'{"a":"' + b"x" * 100_000 + b'"}', b"{}")
    host.written.refs += host.spool.append([big])
    host.written.inputs["big"] = b"{}"
    write_calls(host.spool, host.written, 3)
    async with running(host.courier(small)):
        await host.taker.until(host.written)


async def test_what_is_left_is_sent_before_it_ends(host: Host) -> None:
    courier = host.courier()
    courier.start()
    await eventually(lambda: courier.leading)
    write_calls(host.spool, host.written, 5)
    closing = asyncio.create_task(courier.close())
    await host.taker.until(host.written)
    assert await closing
    assert not await courier.close()


async def test_what_nobody_confirms_is_not_waited_for_longer_than_said(host: Host) -> None:
    courier = host.courier()
    courier.start()
    await eventually(lambda: courier.leading)
    write_calls(host.spool, host.written, 5)
    async with asyncio.timeout(30):
        assert not await courier.close(0.3)
    await host.taker.until(host.written)


async def test_its_lag_can_be_asked_for_while_another_writer_is_found(host: Host) -> None:
    courier = host.courier()
    late = Writer(Packer("late", 1, 0.0))

    class Marks(deque[Mark]):
        def __iter__(self) -> Iterator[Mark]:
            courier._writers["late"] = late  # as the thread that gathers does
            return super().__iter__()

    courier._writers["early"] = Writer(Packer("early", 1, 0.0), marks=Marks())
    assert courier.lag().records == 0
    assert list(courier._writers) == ["early", "late"]
