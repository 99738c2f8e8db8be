"""The data plane put together: what the dead left open is finished once; it follows changes whatever fails beside."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_stream import until
from pydantic import SecretStr
from spool_folders import SMALL, die, read

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_adapters.spool import Spool
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.composition.embedded import recover
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.gateway import DataPlane, build_upstream, open_data_plane, state_keys
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Amounts, Budget, Match, Reserve, Scope
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.records import DECIDED, FINISHED
from fulcrum_mcp.ports import ConfigRepository
from fulcrum_mcp.settings import ServerSettings, Settings

CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def record(kind: str, call: str, **data: Any) -> RecordDraft:
    content = {"decision_id": f"dec_{call}", "call_id": call, "leg": 0, "cost": {"calls": 1}, **data}
    return RecordDraft(new_id(), "acme", kind, call, now_ns(), json.dumps(content, separators=(",", ":")).encode())


def leave(folder: Path, *calls: str, finished: tuple[str, ...] = ()) -> None:
    """What a killed gateway leaves: these calls decided and reserved, some of them finished."""
    spool = Spool.open(folder / "spool", SMALL)
    store = SqliteStore(folder / "ledger.db")
    for call in calls:
        match = (Match(CALLS, "acme"),)
        store.ledger.apply([Reserve(call, 0, "acme", spool.writer, match, Amounts(), now_ns(), 90)])
        spool.append([record(DECIDED, call, effect="allow", server="files", tool="echo")])
    for call in finished:
        spool.append([record(FINISHED, call, outcome="ok")])
    store.close()
    die(spool)


def ends(folder: Path) -> list[tuple[str, str]]:
    lines, faults = read(folder / "spool")
    assert faults == []
    records = [json.loads(line) for line in lines]
    return sorted((one["subject"], one["data"]["outcome"]) for one in records if one["type"] == FINISHED)


def balance(folder: Path) -> tuple[int, int]:
    store = SqliteStore(folder / "ledger.db")
    (usage,) = store.ledger.usage([CALLS], now_ns())
    store.close()
    return usage.committed["calls"], usage.reserved["calls"]


def test_calls_of_a_dead_gateway_are_unknown_once_and_charged(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    leave(folder, "c1", "c2", "c3", finished=("c2",))
    assert balance(folder) == (0, 3)
    with Spool.open(folder / "spool", SMALL) as own:
        assert recover(folder, own, SMALL) == 2
        assert recover(folder, None, SMALL) == 0
    for _ in range(2):
        with Spool.open(folder / "spool", SMALL) as own:
            assert recover(folder, own, SMALL) == 0
    assert ends(folder) == [("c1", "outcome_unknown"), ("c2", "ok"), ("c3", "outcome_unknown")]
    assert balance(folder) == (3, 0)


def test_several_dead_gateways_are_finished_by_one_that_lives_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    with Spool.open(folder / "spool", SMALL) as own, Spool.open(folder / "spool", SMALL) as living:
        living.append([record(DECIDED, "alive", effect="allow")])
        leave(folder, "a1")
        leave(folder, "b1", "b2")
        found = recover(folder, None, SMALL) + recover(folder, own, SMALL)
        assert found == 3
        assert recover(folder, None, SMALL) == 0
    assert [call for call, _ in ends(folder)] == ["a1", "b1", "b2"]


def test_denied_calls_are_not_open(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    with Spool.open(folder / "spool", SMALL) as spool:
        spool.append([record(DECIDED, "c1", effect="deny"), record(DECIDED, "c2", effect="require_approval")])
        die(spool)
    with Spool.open(folder / "spool", SMALL) as own:
        assert recover(folder, own, SMALL) == 0


@asynccontextmanager
async def plane(folder: Path, config: ConfigRepository | None = None) -> AsyncIterator[DataPlane]:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "p.rego").write_text("package fulcrum.policies.one\n\nimport rego.v1\n\nallow := true\n")
    opened = await open_data_plane(Settings(data=folder / "data", policies=policies), config or MemoryConfig())
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.anyio
async def test_changes_are_followed_whatever_fails_beside(tmp_path: Path) -> None:
    config = MemoryConfig()
    async with plane(tmp_path, config) as opened:
        failed: list[int] = []

        def broken() -> None:
            failed.append(1)
            raise RuntimeError("a bug")

        opened.follower.on_revision.append(broken)
        config.budgets.add(Budget("b1", "default", "daily", Scope("agent"), {"calls": 1}))
        await until(lambda: failed, "a change was told of, in vain")
        (tmp_path / "policies" / "p.rego").write_text(
            "package fulcrum.policies.two\n\nimport rego.v1\n\nallow := true\n"
        )
        await until(lambda: opened.holder.current.engine.info.names == ("two",), "the change is live")


@pytest.mark.anyio
async def test_what_never_came_back_is_settled_even_while_configuration_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulcrum_mcp.composition.gateway._SWEEP", 0.0)
    swept = asyncio.Event()
    async with plane(tmp_path) as opened:

        async def unreadable(_: object) -> None:
            raise OSError("control plane: gone")

        monkeypatch.setattr(opened.snapshots, "read_store", unreadable)
        monkeypatch.setattr(opened.hub.rounds, "sweep", swept.set)
        async with asyncio.timeout(5):
            await swept.wait()


@pytest.mark.anyio
async def test_closing_twice_is_closing_once_and_a_new_plane_finds_nothing_open(tmp_path: Path) -> None:
    async with plane(tmp_path) as opened:
        await opened.close()
        assert opened.stores.recovered == 0


def test_state_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    made = state_keys(Settings(data=folder), folder)
    assert state_keys(Settings(data=folder), folder) == made
    assert len(made[0]) >= 32
    assert stat.S_IMODE((folder / "keys" / "state.key").stat().st_mode) == 0o600
    given = Settings(data=folder, state_keys=(SecretStr("k" * 32), SecretStr("o" * 32)))
    assert state_keys(given, folder) == [b"k" * 32, b"o" * 32]


def test_server_without_command_and_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="neither a command nor a url"):
        build_upstream(ServerSettings(name="x"), Settings(data=tmp_path))
