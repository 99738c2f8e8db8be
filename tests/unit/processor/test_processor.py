import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_trails import calls, verdict

from fulcrum_adapters.memory.audit import MemoryAuditLog, MemoryAuditStore, MemoryLeadership
from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolConfig
from fulcrum_mcp.composition.audit import open_keys, open_processor, open_reader, open_spool, open_trail
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import StoreBatch
from fulcrum_mcp.processor.intake import Intake
from fulcrum_mcp.processor.processor import Processor, ProcessorConfig

FAST = ProcessorConfig(poll=0.005, checkpoint_every=0.0, retry=0.01)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, bounded."""
    ticks = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        ticks.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_a_running_processor_takes_in_and_signs_by_itself(tmp_path: Path) -> None:
    processor = open_processor(tmp_path, FAST)
    processor.start()
    try:
        with open_spool(tmp_path) as spool:
            spool.append(calls(5))
            reader = open_reader(tmp_path)
            until(lambda: reader.counts(None)["records"] == 10 and reader.counts(None)["checkpoints"] >= 1)
            reader.close()
    finally:
        processor.stop()


def test_stopping_takes_in_and_signs_the_rest(tmp_path: Path) -> None:
    processor = open_processor(tmp_path, ProcessorConfig(poll=3600, checkpoint_every=3600))
    processor.start()
    with open_spool(tmp_path) as spool:
        spool.append(calls(5))
    processor.stop()
    processor.stop()
    reader = open_reader(tmp_path)
    assert (reader.counts(None)["records"], reader.counts(None)["checkpoints"]) == (10, 1)
    reader.close()


def test_draining_waits_for_whoever_leads(tmp_path: Path) -> None:
    leader = open_processor(tmp_path, FAST)
    follower = open_processor(tmp_path, FAST)
    assert leader.drain()
    with open_spool(tmp_path) as spool:
        spool.append(calls(3))
        assert not follower.drain(0.0)
        leader.start()
        assert follower.drain(20.0)
    leader.stop()
    spool = open_spool(tmp_path)
    spool.append(calls(1))
    assert follower.drain(20.0)  # leads now, and goes on from what the other left
    spool.close()
    follower.stop()
    with open_trail(tmp_path) as trail:
        assert trail.reader.counts(None)["records"] == 8
        lines = list(export_trail(trail.reader, trail.signer, None, "2026-08-01T12:00:00Z"))
    assert verdict(lines, open_keys(tmp_path)) is None


def test_only_one_leads(tmp_path: Path) -> None:
    one, two = FileLeadership(tmp_path / "lock"), FileLeadership(tmp_path / "lock")
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    one.release()
    one.release()
    assert two.acquire()
    two.release()


class Failing(MemoryAuditStore):
    """Refuses its first transactions, after it was told what they hold."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def add(self, batch: StoreBatch) -> None:
        if self.times:
            self.times -= 1
            raise Unavailable("the disk is full")
        super().add(batch)


def test_a_failing_store_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    log, store, keys = MemoryAuditLog(), Failing(3), AuditKeys(tmp_path)
    processor = Processor(lambda: Intake(log, store, keys), MemoryLeadership(), FAST)
    processor.start()
    log.append(calls(4))
    until(lambda: store.counts(None)["records"] == 8)
    log.append(calls(1))
    processor.stop()
    assert verdict(export_trail(store, keys, None, "2026-08-01T12:00:00Z"), keys) is None
    assert store.counts(None)["records"] == 10


def test_an_error_nobody_expected_does_not_end_the_processor(tmp_path: Path) -> None:
    log, store, keys = MemoryAuditLog(), MemoryAuditStore(), AuditKeys(tmp_path)
    troubles = [RuntimeError("a bug"), RuntimeError("again")]

    def begin() -> Intake:
        if troubles:
            raise troubles.pop()
        return Intake(log, store, keys)

    log.append(calls(1))
    processor = Processor(begin, MemoryLeadership(), FAST)
    processor.start()
    until(lambda: store.counts(None)["records"] == 2)
    processor.stop()


def test_a_checkpoint_comes_when_enough_records_wait(tmp_path: Path) -> None:
    log, store, keys = MemoryAuditLog(), MemoryAuditStore(), AuditKeys(tmp_path)
    config = ProcessorConfig(poll=0.005, checkpoint_every=3600, checkpoint_records=10)
    processor = Processor(lambda: Intake(log, store, keys), MemoryLeadership(), config)
    processor.start()
    log.append(calls(2))
    until(lambda: store.counts(None)["records"] == 4)
    assert store.counts(None)["checkpoints"] == 0
    log.append(calls(3))
    until(lambda: store.counts(None)["checkpoints"] == 1)
    processor.stop()


def test_confirmed_segments_vanish_and_the_chain_goes_on(tmp_path: Path) -> None:
    config = SpoolConfig("os", segment_bytes=8192)
    processor = open_processor(tmp_path, FAST)
    with Spool.open(tmp_path / "spool", config) as spool:
        for _ in range(50):
            spool.append(calls(1))
        assert len(list((tmp_path / "spool").rglob("*.seg"))) > 5
        assert processor.drain()
        assert len(list((tmp_path / "spool").rglob("*.seg"))) == 1
        spool.append(calls(1))
    assert processor.drain()
    processor.stop()
    reader = open_reader(tmp_path)
    assert dict(reader.counts(None)) | {"last": 0} == {
        "records": 102,
        "chains": 1,
        "checkpoints": 2,
        "inputs": 51,
        "faults": 0,
        "last": 0,
    }
    reader.close()


def test_a_store_set_back_to_an_older_state_is_noticed(tmp_path: Path) -> None:
    """The spool's own word on its heads: records that were removed from the store are missed."""
    config = SpoolConfig("os", segment_bytes=4096)
    processor = open_processor(tmp_path, FAST)
    with Spool.open(tmp_path / "spool", config) as spool:
        for _ in range(20):
            spool.append(calls(1))
        assert processor.drain()
        processor.stop()
        for path in tmp_path.glob("audit.db*"):
            path.unlink()
        spool.append(calls(1))
    processor = open_processor(tmp_path, FAST)
    assert processor.drain()
    processor.stop()
    reader = open_reader(tmp_path)
    assert reader.counts(None)["faults"] >= 1
    fault = verdict(export_trail(reader, open_keys(tmp_path), None, "2026-08-01T12:00:00Z"), open_keys(tmp_path))
    assert "seq 1 is missing" in str(fault)
    reader.close()


def test_a_folder_where_nothing_was_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nothing is recorded"), open_trail(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
