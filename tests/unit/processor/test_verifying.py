from pathlib import Path

import pytest
from audit_trails import calls, verdict
from processor_doubles import SmallArchive, parcels_of

from fulcrum_adapters.memory.audit import MemoryAuditStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ArchivedRecord
from fulcrum_mcp.processor import verifying
from fulcrum_mcp.processor.parcels import unpack
from fulcrum_mcp.processor.verifying import Verifier


class Ticks:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def records(writer: str = "w", number: int = 5, tenant: str = "acme") -> list[ArchivedRecord]:
    body = parcels_of(writer, [calls(number, tenant=tenant)])[0].body
    return [entry.record for entry in unpack("s", tenant, body, 2**60)[0]]


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    return AuditKeys(tmp_path)


def walk(verifier: Verifier) -> dict[str, int]:
    moved: dict[str, int] = {}
    while (step := verifier.step()) is not None:
        moved |= step.moved
    return moved


def exported(archive: SmallArchive, keys: AuditKeys) -> object:
    return verdict(export_trail(archive, keys, None, "2026-08-01T12:00:00Z"), keys)


def test_what_is_stored_in_any_order_is_checked_in_one(keys: AuditKeys) -> None:
    archive, ticks = SmallArchive(), Ticks()
    verifier = Verifier(archive, keys, ticks=ticks)
    assert verifier.step() is None
    rows = records()
    archive.store(rows[:3] + rows[6:], [])
    assert walk(verifier) == {"w.acme": 3}
    assert verifier.gaps["w.acme"].missing == 4
    assert verifier.broken == {}
    assert verifier.stored() == {"w.acme": 3}
    archive.store(rows[3:6], [])
    ticks.now += 10
    assert walk(verifier) == {"w.acme": 10}
    assert verifier.gaps == {}
    assert verifier.unsigned == 10
    assert verifier.sign() == 1
    assert verifier.unsigned == 0
    assert verifier.sign() == 0
    assert exported(archive, keys) is None


def test_a_gap_is_no_break_and_its_age_is_known(keys: AuditKeys) -> None:
    archive, ticks = SmallArchive(), Ticks()
    verifier = Verifier(archive, keys, ticks=ticks)
    archive.store(records()[4:], [])
    for _ in range(20):
        walk(verifier)
        ticks.now += 3
    gap = verifier.gaps["w.acme"]
    assert (gap.missing, gap.since) == (1, 100.0)
    assert gap.wait <= 5.0
    assert verifier.broken == {}
    assert archive.load().chains["w.acme"].size == 0


def test_a_chain_with_a_gap_keeps_no_other_waiting(keys: AuditKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_MOST", 4)
    archive = SmallArchive()
    archive.store(records("a", 20)[1:], [])
    archive.store(records("b", 20)[1:], [])
    archive.store(records("c", 3), [])
    verifier = Verifier(archive, keys, ticks=Ticks())
    assert walk(verifier) == {"c.acme": 6}
    assert set(verifier.gaps) == {"a.acme", "b.acme"}


def test_a_forked_chain_is_broken_for_good_and_others_go_on(keys: AuditKeys) -> None:
    archive = SmallArchive()
    one, other = records("w", 3), records("w", 3)
    archive.store(one[:3] + other[3:], [])
    archive.store(records("v", 2), [])
    verifier = Verifier(archive, keys, ticks=Ticks())
    step = verifier.step()
    assert step is not None
    assert ["chain w.acme is broken" in fault for fault in step.faults] == [True]
    assert "seq 4" in verifier.broken["w.acme"]
    assert verifier.stored() == {"v.acme": 4, "w.acme": 6}  # nobody has to keep what is here, right or wrong
    verifier.sign()
    state = archive.load()
    assert (state.chains["w.acme"].size, state.chains["w.acme"].signed) == (3, 3)
    assert "w.acme" in state.broken
    again = Verifier(archive, keys, ticks=Ticks())
    assert again.step() is not None
    assert again.step() is None
    assert again.stored() == {"v.acme": 4, "w.acme": 6}
    assert "seq 4" in again.broken["w.acme"]
    assert archive.counts(None)["faults"] == 1


def test_a_record_of_another_tenant_in_a_chain_breaks_it(keys: AuditKeys) -> None:
    archive = SmallArchive()
    rows = records()
    archive.store([*rows[:2], rows[2]._replace(tenant="other")], [])
    verifier = Verifier(archive, keys, ticks=Ticks())
    walk(verifier)
    assert "w.acme" in verifier.broken


def test_the_next_leader_goes_on_where_the_last_one_ended(keys: AuditKeys) -> None:
    archive = SmallArchive()
    rows = records(number=50)
    archive.store(rows[:60], [])
    first = Verifier(archive, keys)
    walk(first)
    first.sign()
    archive.store(rows[60:], [])
    second = Verifier(archive, keys)
    assert second.stored() == {"w.acme": 60}
    assert walk(second) == {"w.acme": 100}
    second.sign()
    assert [number for _, number in sorted(archive.numbers)] == [1, 2]
    assert exported(archive, keys) is None


def test_two_that_believe_to_lead_never_sign_the_same_number(keys: AuditKeys) -> None:
    archive = SmallArchive()
    archive.store(records(number=2), [])
    one, two = Verifier(archive, keys), Verifier(archive, keys)
    walk(one)
    walk(two)
    one.sign()
    with pytest.raises(Unavailable):
        two.sign()
    assert len(archive._checkpoints) == 1
    assert exported(archive, keys) is None


def test_a_step_takes_so_many_and_says_that_there_is_more(keys: AuditKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_MOST", 4)
    monkeypatch.setattr(verifying, "_PLENTY", 4)
    archive = SmallArchive()
    archive.store(records(number=3), [])
    verifier = Verifier(archive, keys, ticks=Ticks())
    first, second, third = verifier.step(), verifier.step(), verifier.step()
    assert first is not None
    assert second is not None
    assert (first.moved, first.more, second.moved, second.more, third) == (
        {"w.acme": 4}, True, {"w.acme": 6}, False, None
    )  # fmt: skip


def test_the_chains_are_those_of_a_trail_that_one_process_has_written(keys: AuditKeys) -> None:
    """The embedded processor and this one leave the same state for the same records."""
    archive, rows = SmallArchive(), records(number=20)
    archive.store(rows, [])
    verifier = Verifier(archive, keys, ticks=Ticks())
    walk(verifier)
    expected = ChainState("w.acme", "acme")
    for row in rows:
        expected.add(row.hash)
    found = archive.load().chains["w.acme"]
    assert found.as_fields() == expected.as_fields()
    assert isinstance(archive, MemoryAuditStore)
