from pathlib import Path

import pytest
from audit_trails import calls, exported, intake_all, verdict

from fulcrum_adapters.memory.audit import MemoryAuditLog, MemoryAuditStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.composition.reconcile import mend_chains
from fulcrum_mcp.ports import StoreBatch
from fulcrum_mcp.processor import Intake
from fulcrum_mcp.processor.columns import Record, read_record, row_of


def put(store: MemoryAuditStore, lines: list[bytes]) -> None:
    for line in lines:
        record = read_record(line)
        assert isinstance(record, Record)
        store.add(StoreBatch(rows=[row_of(record, line, {})]))


@pytest.mark.parametrize(("put_back", "whole"), [((3, 8), True), ((3,), False), ((8,), False)])
def test_a_chain_whose_missing_records_are_back_goes_on(put_back: tuple[int, ...], whole: bool, tmp_path: Path) -> None:
    log, store, keys = MemoryAuditLog("w"), MemoryAuditStore(), AuditKeys(tmp_path)
    log.append(calls(10))
    lines = list(log.lines)
    log.lines = [line for place, line in enumerate(lines) if place not in {3, 8}]
    intake_all(Intake(log, store, keys, breath=0.0))
    assert store.load().chains["w.default"].size == 3
    put(store, [lines[place] for place in put_back])
    mend_chains(store, store)
    state = store.load()
    assert (state.broken == {}) == whole
    assert state.chains["w.default"].size == (20 if whole else 8 if 3 in put_back else 3)
    Intake(log, store, keys, breath=0.0).sign()
    assert (verdict(exported(store, keys), keys) is None) == whole
