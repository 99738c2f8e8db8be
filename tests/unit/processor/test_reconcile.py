from collections.abc import Iterable, Sequence
from random import Random

import pytest
from audit_trails import calls
from hypothesis import given
from hypothesis import strategies as st
from processor_doubles import SmallArchive, parcels_of, tenant_of

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.core.frames import RECORD, frame
from fulcrum_mcp.ports import ArchivedRecord, Seen, SpoolChunk, SpoolPosition
from fulcrum_mcp.processor.archived import archived
from fulcrum_mcp.processor.parcels import unpack
from fulcrum_mcp.processor.reconcile import Difference, Reconciliation, read_spools, repair
from fulcrum_mcp.processor.verifying import Verifier

LOG = MemoryAuditLog("w")
LOG.append(calls(10))
LOG.append(calls(5, tenant="acme"))
CHAIN = "w.default"


def record(line: bytes) -> ArchivedRecord:
    found = archived(line)
    assert isinstance(found, ArchivedRecord)
    return found


ROWS = [record(line) for line in LOG.lines]
KEYS: list[AuditKeys] = []


@pytest.fixture(scope="module", autouse=True)
def _keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    KEYS.append(AuditKeys(tmp_path_factory.mktemp("keys")))


class Place:
    """An installation whose spool, stream and store hold what a test says."""

    def __init__(self, spool: Iterable[int], stream: Iterable[int], store: Iterable[int], *, checked: int = 0) -> None:
        self.log = MemoryAuditLog("w")
        self.log.lines = [LOG.lines[place] for place in spool]
        self.log.inputs = LOG.inputs
        self.stream = [ROWS[place] for place in stream]
        self.archive = SmallArchive()
        if checked:
            self.archive.store(ROWS[:checked], [])
            verifier = Verifier(self.archive, KEYS[0])
            while verifier.step() is not None:
                pass
            verifier.sign()
            self.archive.lose_everything()
        self.archive.store([ROWS[place] for place in store], [])

    def look(self) -> Reconciliation:
        found = Reconciliation()
        read_spools(self.log, found)
        for row in self.stream:
            seen = Seen(f"audit/{row.tenant}", frame(RECORD, row.line), None)
            found.take_parcel(seen, tenant_of(seen.subject))
        found.take_state(self.archive.load())
        found.take_store(self.archive.lines(None))
        return found

    def put(self, lines: Sequence[bytes], inputs: Sequence[tuple[str, bytes]]) -> None:
        self.archive.store([record(line) for line in lines], [(name, "t", 0, text) for name, text in inputs])


ALL = range(30)


def brief(differences: Sequence[Difference]) -> list[tuple[str, int, int, str]]:
    return [(each.chain, each.first, each.last, each.where.partition(":")[0]) for each in differences]


def test_the_same_everywhere_is_no_difference() -> None:
    for place in (Place(ALL, ALL, ALL), Place([], [], ALL, checked=30), Place(range(10, 30), range(25, 30), ALL)):
        found = place.look()
        assert found.differences() == []
        assert found.wanted() == {}
        assert (found.records, found.store[CHAIN].size, found.store["w.acme"].last) == (30, 20, 10)


def test_what_is_missing_in_the_store_is_named_with_where_it_still_is() -> None:
    place = Place(range(4, 8), range(6, 10), [*range(3), *range(12, 30)])
    found = place.look()
    assert brief(found.differences()) == [
        (CHAIN, 4, 4, "nowhere"),
        (CHAIN, 5, 6, "in the spool, not in the store"),
        (CHAIN, 7, 8, "in the spool and in the stream, not in the store"),
        (CHAIN, 9, 10, "in the stream, not in the store"),
        (CHAIN, 11, 12, "nowhere"),
    ]
    assert [each.repairable for each in found.differences()] == [False, True, True, False, False]
    assert found.wanted() == {CHAIN: frozenset({5, 6, 7, 8})}


def test_an_end_that_was_cut_off_is_missed_by_whoever_saw_it() -> None:
    found = Place([], [], range(15), checked=30).look()
    assert brief(found.differences()) == [("w.acme", 1, 10, "nowhere"), (CHAIN, 16, 20, "nowhere")]
    found = Place([], [], range(15)).look()
    assert found.differences() == []  # nobody here has ever seen more
    found = Reconciliation()
    found.take_spool_head(CHAIN, 20, ROWS[19].hash)
    found.take_store(LOG.lines[:15])
    assert brief(found.differences()) == [(CHAIN, 16, 20, "nowhere")]


def test_another_record_in_its_place_is_found_whoever_has_it() -> None:
    other = parcels_of("w", [calls(10)])[0].body
    rows = [entry.record for entry in unpack("s", "default", other, 0)[0]]
    place = Place(range(20), [], [])
    place.archive.store(rows, [])
    found = place.look()
    assert {(each.what, each.first) for each in found.differences()} == {("other", seq) for seq in range(1, 21)}
    assert found.wanted() == {}  # what is there is never overwritten
    place = Place([], range(20), [], checked=30)
    place.archive.lose_everything()
    place.archive.store(rows, [])
    said = {each.where for each in place.look().differences() if each.what == "other"}
    assert said == {
        "the store has another record there than the stream",
        "the store has another record there than the writer or the checks",
    }


def test_bytes_that_were_changed_in_the_store_are_found() -> None:
    lines = [
        line.replace(b'"outcome":"ok"', b'"outcome":"no"') if n == 3 else line for n, line in enumerate(LOG.lines[:20])
    ]
    found = Reconciliation()
    found.take_store(lines)
    assert [(each.what, each.first) for each in found.differences()] == [("changed", 4)]


def test_links_that_do_not_fit_and_lines_that_are_none_are_found() -> None:
    other = unpack("s", "default", parcels_of("w", [calls(10)])[0].body, 0)[0]
    found = Reconciliation()
    found.take_store([*LOG.lines[:10], other[10].record.line, b"noise", LOG.lines[3]])
    assert [(each.what, each.first) for each in found.differences()] == [
        ("unreadable", 0),
        ("unlinked", 4),
        ("unlinked", 11),
    ]


def test_records_that_an_export_leaves_out_are_asked_for_by_their_links() -> None:
    place = Place(ALL, [], [*range(4), *range(6, 30)])
    found = Reconciliation()
    read_spools(place.log, found)
    found.take_store(LOG.lines[:4])  # as if what follows might still wait for seq 5
    found.take_links(place.archive)
    assert brief(found.differences()) == [(CHAIN, 5, 6, "in the spool, not in the store")]
    assert (found.records, found.store[CHAIN].last, found.store["w.acme"].size) == (28, 20, 10)


def test_a_broken_chain_and_a_damaged_parcel_are_told() -> None:
    place = Place(ALL, [], ALL)
    found = Reconciliation()
    found.take_parcel(Seen("audit/default", b"noise", None), "default")
    found.take_parcel(Seen("audit/default", frame(RECORD, ROWS[0].line), "not ours"), "default")
    state = place.archive.load()
    state.broken["w.x"] = "forked"
    found.take_state(state)
    told = [(each.chain, each.what) for each in found.differences()]
    assert told == [("", "unreadable"), ("", "unreadable"), ("w.x", "broken")]
    assert found.stream.counts == {}


def test_a_repair_stores_what_is_missing_byte_for_byte_with_its_inputs() -> None:
    place = Place(range(20), [], [0, 1, 5, 19, *range(20, 30)])
    found = place.look()
    assert repair(place.log, found.wanted(), place.put) == 16
    assert place.look().differences() == []
    assert [place.archive.rows[CHAIN, seq].line for seq in range(1, 21)] == LOG.lines[:20]
    assert len(place.archive.inputs) == 9


class Pieces:
    """A spool that is read in pieces of one frame, as badly cut as can be."""

    def __init__(self, log: MemoryAuditLog) -> None:
        self.log = log
        self.frames: list[tuple[bytes | None, tuple[str, bytes] | None]] = []
        inputs = dict(log.inputs)
        for line in log.lines:
            self.frames.append((line, None))
            name = record(line).id
            if name in inputs:
                self.frames.append((None, (name, inputs[name])))

    def writers(self) -> Sequence[str]:
        return ["w"]

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        if writer != "w" or position.offset >= len(self.frames):
            return None
        line, text = self.frames[position.offset]
        lines, inputs = [] if line is None else [line], [] if text is None else [text]
        return SpoolChunk(lines, inputs, [], SpoolPosition(1, position.offset + 1), [])

    def release(self, writer: str, position: SpoolPosition) -> None:
        pass

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        pass


def test_inputs_that_lie_in_the_next_piece_are_not_forgotten() -> None:
    place = Place(range(20), [], [])
    assert repair(Pieces(place.log), place.look().wanted(), place.put) == 20
    assert len(place.archive.inputs) == 10
    assert len(place.archive.rows) == 20


class Vanishing(MemoryAuditLog):
    """Its first reading finds a segment gone that was confirmed meanwhile."""

    faults = 1

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        chunk = super().read(writer, position)
        if chunk is not None and self.faults:
            self.faults -= 1
            chunk.faults.append("00000001.seg is gone, it was read up to byte 5")
        return chunk


def test_a_segment_that_goes_while_it_is_read_is_no_fault_and_one_that_stays_damaged_is() -> None:
    log = Vanishing("w")
    log.lines = LOG.lines
    found = Reconciliation()
    read_spools(log, found)
    assert found.notes == []
    log.faults = 100
    read_spools(log, found)
    assert [each.what for each in found.notes] == ["unreadable"]


def test_a_seq_that_somebody_made_up_costs_nothing() -> None:
    found = Reconciliation()
    found.take_spool_head(CHAIN, 10**17, "f" * 64)
    found.take_store(LOG.lines[:20])
    assert brief(found.differences()) == [(CHAIN, 21, 10**17, "nowhere")]


@given(st.integers(0, 2**32))
def test_every_planted_loss_is_named_exactly(seed: int) -> None:
    chance = Random(seed)
    spool, stream, store = (
        {place for place in ALL if chance.random() < chance.choice((0.2, 0.8, 1))} for _ in range(3)
    )
    found = Place(sorted(spool), sorted(stream), sorted(store), checked=30).look()
    named = {(each.chain, seq): each for each in found.differences() for seq in range(each.first, each.last + 1)}
    for place in ALL:
        row = ROWS[place]
        each = named.pop((row.chain, row.seq), None)
        assert (each is None) == (place in store)
        if each is not None:
            assert each.what == "missing"
            assert each.repairable == (place in spool)
            assert each.where.startswith("nowhere") == (place not in spool | stream)
    assert named == {}
