import asyncio
import json
from pathlib import Path

import anyio.to_thread
import pytest

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.composition.control import OPERATOR
from fulcrum_mcp.composition.local import open_local
from fulcrum_mcp.composition.management import into_journal
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.ports import AuditQuery, SpoolPosition


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_command_records_its_changes_in_the_chain_of_the_data_folder(tmp_path: Path) -> None:
    with open_local(tmp_path / "data", None, must_exist=False) as target:
        key = target.create_key({"name": "ci"})["key"]["id"]
        target.revoke_key(key)
        budget = target.create_budget({"scope": "agent", "calls": 1})["id"]
        target.delete_budget(budget)
    with open_trail(tmp_path / "data") as trail:
        records = [json.loads(record.line) for record in trail.reader.query(AuditQuery(after=0))]
    assert [(one["type"].removeprefix("dev.fulcrum."), one["subject"]) for one in records] == [
        ("auth.key_created", key),
        ("auth.key_revoked", key),
        ("budget.created", budget),
        ("budget.deleted", budget),
    ]
    assert {one["data"]["by"]["agent"] for one in records} == {"operator"}
    assert [one["seq"] for one in records] == [1, 2, 3, 4]


@pytest.mark.anyio
async def test_a_gateway_records_through_its_journal_from_any_thread() -> None:
    log = MemoryAuditLog()
    journal = Journal(MemoryLedger(), log)
    journal.start()
    record = into_journal(lambda: journal, asyncio.get_running_loop())
    await anyio.to_thread.run_sync(record, OPERATOR, "dev.fulcrum.auth.key_created", "k1", {"key": {"id": "k1"}})
    chunk = log.read("memory", SpoolPosition(0, 0))
    assert chunk is not None
    (line,) = chunk.lines
    assert json.loads(line)["subject"] == "k1"
    await journal.close()
    with pytest.raises(Unavailable):
        await anyio.to_thread.run_sync(record, OPERATOR, "dev.fulcrum.auth.key_created", "k2", {})
