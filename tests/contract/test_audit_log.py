"""One suite over every AuditLog, SpoolSource and AuditStore; readers have one of their own."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from audit_trails import calls, decided, exported, intake_all, new_id, verdict
from stream_logs import stream_log

from fulcrum_adapters.memory.audit import MemoryAuditLog, MemoryAuditStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.spool import Spool, SpoolConfig, SpoolReader
from fulcrum_adapters.sqlite.audit_reader import SqliteAuditReader
from fulcrum_adapters.sqlite.audit_store import SqliteAuditStore
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.audit import GENESIS, parse_record
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import (
    AuditLog,
    AuditQuery,
    AuditReader,
    AuditStore,
    SpoolChunk,
    SpoolPosition,
    SpoolSource,
    StoreBatch,
)
from fulcrum_mcp.processor import Intake

START = SpoolPosition(0, 0)


@dataclass
class Log:
    log: AuditLog
    source: SpoolSource


STREAM = pytest.param("stream", marks=[pytest.mark.service, pytest.mark.parts])


@pytest.fixture(params=["memory", "sync", "os", STREAM])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    if request.param == "memory":
        memory = MemoryAuditLog()
        yield Log(memory, memory)
        return
    if request.param == "stream":
        with stream_log(request.getfixturevalue("nats_url")) as (streamed, records):
            yield Log(streamed, records)
        return
    with Spool.open(tmp_path / "spool", SpoolConfig(request.param)) as spool:
        yield Log(spool, SpoolReader(tmp_path / "spool", tmp_path / "aside"))


@dataclass
class Store:
    store: AuditStore
    reader: AuditReader
    again: Callable[[], AuditStore]
    """The same store, opened by another process."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        memory = MemoryAuditStore()
        yield Store(memory, memory, lambda: memory)
        return
    opened = [SqliteAuditStore(tmp_path / "audit.db")]
    reader = SqliteAuditReader(tmp_path / "audit.db")

    def again() -> AuditStore:
        opened.append(SqliteAuditStore(tmp_path / "audit.db"))
        return opened[-1]

    yield Store(opened[0], reader, again)
    reader.close()
    for each in opened:
        each.close()


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    return AuditKeys(tmp_path / "keys")


def read_all(source: SpoolSource) -> list[bytes]:
    lines: list[bytes] = []
    for writer in source.writers():
        position = START
        while (chunk := source.read(writer, position)) is not None:
            assert chunk.faults == []
            lines += chunk.lines
            position = chunk.position
    return lines


def test_records_are_chained_per_tenant_and_read_back_verbatim(log: Log) -> None:
    refs = [*log.log.append([*calls(2), *calls(1, tenant="other")]), *log.log.append(calls(1))]
    heads = [parse_record(line) for line in read_all(log.source)]
    assert [(head.id, head.chain, head.seq, head.hash) for head in heads if head] == [
        (ref.id, ref.chain, ref.seq, ref.hash) for ref in refs
    ]
    assert [ref.seq for ref in refs] == [1, 2, 3, 4, 1, 2, 5, 6]
    assert [head.prev for head in heads if head and head.seq == 1] == [GENESIS, GENESIS]


def test_call_inputs_travel_beside_their_record(log: Log) -> None:
    draft = decided(new_id("call_"))
    log.log.append([draft])
    chunk = log.source.read(log.log.writer, START)
    assert chunk is not None
    assert chunk.inputs == [(draft.id, draft.inputs)]


def test_nothing_new_is_none_and_reading_goes_on_where_it_ended(log: Log) -> None:
    log.log.append(calls(1))
    first = log.source.read(log.log.writer, START)
    assert first is not None
    assert log.source.read(log.log.writer, first.position) is None
    log.log.append(calls(1))
    second = log.source.read(log.log.writer, first.position)
    assert second is not None
    assert len(second.lines) == 2


def test_an_empty_append_writes_nothing(log: Log) -> None:
    assert list(log.log.append([])) == []
    assert read_all(log.source) == []


def test_a_closed_log_refuses_and_closing_twice_is_nothing(log: Log) -> None:
    log.log.append(calls(1))
    log.log.close()
    log.log.close()
    with pytest.raises(Unavailable):
        log.log.append(calls(1))
    assert len(read_all(log.source)) == 2


def test_intake_stores_everything_once_and_its_export_is_whole(log: Log, store: Store, keys: AuditKeys) -> None:
    log.log.append([*calls(3), *calls(1, tenant="other")])
    intake = Intake(log.source, store.store, keys, breath=0.0)
    assert intake_all(intake) == []
    assert intake.unsigned == 8
    intake.sign()
    log.log.append(calls(2))
    later = Intake(log.source, store.again(), keys, breath=0.0)
    assert intake_all(later) == []
    assert later.unsigned == 4
    counts = store.reader.counts(None)
    assert (counts["records"], counts["chains"], counts["checkpoints"]) == (12, 2, 2)
    lines = list(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"))
    assert verdict(lines, keys) is None
    records = [line[:-1] for line in lines if line.startswith(b'{"specversion"')]
    assert sorted(records) == sorted(read_all(log.source))
    assert not later.behind()


def test_what_was_changed_in_the_store_is_not_signed_by_an_export(log: Log, store: Store, keys: AuditKeys) -> None:
    log.log.append(calls(3))
    intake = Intake(log.source, store.store, keys, breath=0.0)
    intake_all(intake)
    intake.sign()
    chain, seq, *rest, line = _row(store, 2)
    store.again().add(StoreBatch(rows=[(chain, seq, *rest, line.replace(b'"ok"', b'"no"'))]))
    faults: list[object] = []
    lines = list(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z", faults.append))
    assert [str(fault) for fault in faults] == [f"broken at chain {chain} seq 2: hash differs"]
    assert b"manifest" not in lines[-1]
    assert str(verdict(lines, keys)) == f"broken at chain {chain} seq 2: hash differs"


def _row(store: Store, seq: int) -> tuple[Any, ...]:
    line = next(r.line for r in store.reader.query(AuditQuery()) if json.loads(r.line)["seq"] == seq)
    e = json.loads(line)
    return (e["chain"], seq, e["tenant"], e["type"], 0, e["subject"], 0, None, None, None, None, line)


def test_inputs_are_erased_after_their_time_and_the_trail_stays_whole(log: Log, store: Store, keys: AuditKeys) -> None:
    log.log.append(calls(2))
    intake = Intake(log.source, store.store, keys, breath=0.0, clock=lambda: 1_000_000_000)
    intake_all(intake)
    assert store.reader.counts(None)["inputs"] == 2
    intake.tidy(1_000_001, all_writers=True)
    assert store.reader.counts(None)["inputs"] == 2
    intake.tidy(-1, all_writers=True)
    assert store.reader.counts(None)["inputs"] == 0
    assert verdict(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"), keys) is None


def test_a_record_twice_is_kept_as_a_fault_and_not_stored_again(store: Store, keys: AuditKeys) -> None:
    log = MemoryAuditLog()
    log.append(calls(2))
    log.lines.append(log.lines[1])
    faults = intake_all(Intake(log, store.store, keys, breath=0.0))
    assert faults == ["chain memory.default seq 2 stands there already"]
    assert dict(store.reader.counts(None)) | {"last": 0} == {
        "records": 4,
        "chains": 1,
        "checkpoints": 0,
        "inputs": 2,
        "faults": 1,
        "last": 0,
    }


@pytest.mark.parametrize("harm", ["gap", "fork", "edit", "foreign", "noise"])
def test_what_does_not_fit_is_reported_kept_and_never_made_good(store: Store, keys: AuditKeys, harm: str) -> None:
    log, other = MemoryAuditLog(), MemoryAuditLog()
    log.append(calls(3))
    other.append(calls(3))
    match harm:
        case "gap":
            del log.lines[2]
        case "fork":
            log.lines[2:] = other.lines[2:]
        case "edit":
            log.lines[2] = log.lines[2].replace(b"alice", b"mallo")
        case "foreign":
            log.lines[2] = log.lines[2].replace(b'"chain":"memory.', b'"chain":"stolen.')
        case _:
            log.lines[2] = b"noise"
    intake = Intake(log, store.store, keys, breath=0.0)
    assert len(intake_all(intake)) >= 1
    assert log.kept != []
    assert store.reader.counts(None)["faults"] >= 1
    intake.sign()
    fault = verdict(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"), keys)
    assert fault is not None
    assert "seq 3" in str(fault)


def test_a_writer_cannot_break_the_chain_of_another(store: Store, keys: AuditKeys) -> None:
    log, evil = MemoryAuditLog("w1"), MemoryAuditLog("w2")
    log.append(calls(2))
    intake_all(Intake(log, store.store, keys, breath=0.0))
    evil.lines = [*log.lines[1:], log.lines[1].replace(b'"seq":2', b'"seq":9')]
    assert len(intake_all(Intake(evil, store.again(), keys, breath=0.0))) == 4
    log.append(calls(1))
    assert intake_all(Intake(log, store.again(), keys, breath=0.0)) == []
    assert verdict(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"), keys) is None


class HalfBlind(MemoryAuditLog):
    """One of its two writers cannot be read."""

    def writers(self) -> list[str]:
        return ["broken", self.writer]

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        if writer == "broken":
            raise Unavailable("the disk is failing")
        return super().read(writer, position)


def test_a_spool_that_cannot_be_read_does_not_hold_up_the_others(store: Store, keys: AuditKeys) -> None:
    log = HalfBlind()
    log.append(calls(2))
    intake = Intake(log, store.store, keys, breath=0.0)
    assert intake_all(intake) == []
    assert intake.blocked == {"broken": "the disk is failing"}
    assert store.reader.counts(None)["records"] == 4


def test_a_batch_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    store = SqliteAuditStore(tmp_path / "audit.db")
    store.add(StoreBatch(checkpoints=[("t", 1, b'{"chains":[]}')]))
    with pytest.raises(Unavailable):
        store.add(StoreBatch(positions={"w": SpoolPosition(1, 2)}, checkpoints=[("t", 1, b"again")]))
    assert store.load().positions == {}
    store.close()


def test_the_store_is_private_and_a_newer_one_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    SqliteAuditStore(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Unavailable, match="newer Fulcrum"):
        SqliteAuditReader(path)
    path.write_bytes(b"no database at all, but longer than a header" * 50)
    with pytest.raises(Unavailable, match=r"audit\.db"):
        SqliteAuditStore(path)


def test_memory_and_sqlite_export_the_same_bytes(tmp_path: Path, keys: AuditKeys) -> None:
    log = MemoryAuditLog()
    memory, sqlite = MemoryAuditStore(), SqliteAuditStore(tmp_path / "audit.db")
    intakes = [Intake(log, each, keys, breath=0.0, clock=lambda: 10**18) for each in (memory, sqlite)]
    for number in (2, 3, 1):
        log.append([*calls(number), *calls(1, tenant="other")])
        for intake in intakes:
            intake_all(intake)
            if number != 1:
                intake.sign()
    reader = SqliteAuditReader(tmp_path / "audit.db")
    assert list(export_trail(reader, keys, None, "2026-08-01T12:00:00Z")) == exported(memory, keys)
    reader.close()
    sqlite.close()
