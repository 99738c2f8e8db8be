"""Parcels hold one chain each, contiguous, every record with its inputs."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from audit_trails import calls
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_mcp.core.audit import RecordHead, parse_record
from fulcrum_mcp.gateway.parcels import Load, Packer
from fulcrum_mcp.processor.parcels import unpack


def log_of(counts: Sequence[int]) -> MemoryAuditLog:
    log = MemoryAuditLog("w1")
    for number, count in enumerate(counts):
        log.append(calls(count, tenant=f"t{number % 3}"))
    return log


def head(line: bytes) -> RecordHead:
    found = parse_record(line)
    assert found is not None
    return found


def checked(load: Load) -> list[str]:
    """Ids of all records, after a processor has looked at the parcels."""
    names: list[str] = []
    for parcel in load.parcels:
        entries, letters = unpack("s", parcel.tenant, parcel.body, 1 << 62)
        assert letters == []
        assert [entry.record.seq for entry in entries] == list(range(parcel.first, parcel.last + 1))
        assert {entry.record.chain for entry in entries} == {parcel.chain}
        names += [entry.record.id for entry in entries]
    return names


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 4000), st.lists(st.integers(0, 100), max_size=3))
def test_however_a_spool_is_cut_every_record_is_packed_once_with_its_inputs(
    counts: list[int], most: int, cuts: list[int]
) -> None:
    log = log_of(counts)
    packer = Packer("w1", most, 0.0)
    packed: list[str] = []
    inputs = 0
    places = [0, *sorted(min(cut, len(log.lines)) for cut in cuts), len(log.lines)]
    owned = dict(log.inputs)
    late: list[tuple[str, bytes]] = []
    for start, end in pairwise(places):
        lines = log.lines[start:end]
        here = [(head(line).id, owned[head(line).id]) for line in lines if head(line).id in owned]
        kept, late = [*late, *here], here[-1:] if here and lines and here[-1][0] == head(lines[-1]).id else []
        load = packer.pack(lines, [pair for pair in kept if pair not in late], {}, hold=True)
        packed += checked(load)
        inputs += sum(parcel.body.count(b'\n{"arguments"') for parcel in load.parcels)
    last = packer.pack((), late, {})
    packed += checked(last)
    inputs += sum(parcel.body.count(b'\n{"arguments"') for parcel in last.parcels)
    assert sorted(packed) == sorted(head(line).id for line in log.lines)
    assert inputs == len(log.inputs)


def test_what_is_stored_is_not_packed_and_still_counts() -> None:
    log = log_of([3])
    load = Packer("w1", 1 << 20, 0.0).pack(log.lines, log.inputs, {"w1.t0": 4})
    assert [(parcel.first, parcel.last) for parcel in load.parcels] == [(5, 6)]
    assert (load.ends, load.records, load.gaps) == ({"w1.t0": 6}, 2, {})


def test_a_gap_is_said_and_parts_the_parcels() -> None:
    log = log_of([3])
    load = Packer("w1", 1 << 20, 0.0).pack([*log.lines[:2], *log.lines[3:]], log.inputs, {})
    assert [(parcel.first, parcel.last) for parcel in load.parcels] == [(1, 2), (4, 6)]
    assert load.gaps == {"w1.t0": "seq 3 to 3 are not in the spool, and the archive does not have them"}


@pytest.mark.parametrize("harm", [b"no record", b""])
def test_what_is_no_record_is_refused_and_the_rest_is_packed(harm: bytes) -> None:
    log = log_of([2])
    load = Packer("w1", 1 << 20, 0.0).pack([*log.lines, harm], log.inputs, {})
    assert (load.records, len(load.refused)) == (4, 1)


def test_a_changed_record_and_one_of_another_writer_are_refused() -> None:
    log, other = log_of([2]), MemoryAuditLog("w2")
    other.append(calls(1, tenant="t0"))
    changed = log.lines[1].replace(b'"ok"', b'"no"')
    assert changed != log.lines[1]
    load = Packer("w1", 1 << 20, 0.0).pack([log.lines[0], changed, other.lines[0]], log.inputs, {})
    assert (load.records, len(load.refused)) == (1, 2)
