"""Policies, their data and budgets change together while calls run: each decision comes from one snapshot, whole."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import Rig, open_rig
from scripted_server import ScriptedServer

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_mcp.composition.snapshots import Snapshots
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.gateway.snapshot import Snapshot, SnapshotHolder
from fulcrum_mcp.ports import PolicyEngine, StoredConfig, StoredPolicies
from fulcrum_mcp.settings import Settings

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
CHANGES = 25
POLICY = """package fulcrum.policies.numbered

import rego.v1

allow if input.phase == "list"

allow if count(input.history.taints) == 0

warn contains {"code": "number", "message": sprintf("%d", [data.number])}
"""


class Pausing:
    """An engine that lets others run before and after it judges, as one across the network does."""

    def __init__(self, engine: PolicyEngine) -> None:
        self.info = engine.info
        self._engine = engine

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        await asyncio.sleep(0.001)
        verdicts = await self._engine.evaluate(phase, document)
        await asyncio.sleep(0.001)
        return tuple(verdicts)


class Numbered(MemoryConfig):
    """One change after another: the policies' data say its number, and so does the one budget there is."""

    number = 1

    def revision(self) -> int:
        return self.number

    def read(self) -> StoredConfig:
        source = PolicySource((PolicyModule("p.rego", POLICY),), {"number": self.number}, "numbered")
        budget = Budget(f"b{self.number}", "acme", "calls", Scope("tenant"), {"calls": 1_000_000})
        policies = StoredPolicies(self.number, f"d{self.number}", "ann", 1, source)
        return StoredConfig(self.number, (budget,), policies=policies)


def mixed(decided: list[dict[str, Any]], numbers: Mapping[str, int]) -> list[str]:
    """The decisions that do not come from the snapshot that they name."""
    found: list[str] = []
    for data in decided:
        number = numbers.get(data["snapshot"])
        warned = [warning["message"] for warning in data["warnings"]]
        budgets = [budget["id"] for budget in data["budgets"]]
        if number is None or warned != [f"{number}"] or budgets != [f"b{number}"]:
            found.append(f"{data['snapshot']} ({number}): warned {warned}, budgets {budgets}")
    return found


async def under_load(
    folder: Path, made: Callable[[Snapshot, SnapshotHolder], Snapshot] = lambda snapshot, _: snapshot
) -> tuple[list[dict[str, Any]], dict[str, int], Rig]:
    """Many calls while everything changes; the data of their decisions, and which snapshot is which change."""
    store = Numbered()
    snapshots = Snapshots(Settings(data=folder), store)
    source = snapshots.first()
    numbers: dict[str, int] = {}
    over = asyncio.Event()
    async with open_rig(ScriptedServer("files")) as rig:

        def use(snapshot: Snapshot) -> None:
            numbers[snapshot.revision] = snapshot.config_revision
            rig.holder.swap(made(replace(snapshot, engine=Pausing(snapshot.engine)), rig.holder))

        use(source.current)
        source.on_swap.append(use)

        async def calling() -> None:
            client = rig.client(PATH)
            while not over.is_set():
                reply = await client.request("tools/call", {"name": "echo", "arguments": {}})
                assert "echo" in reply.result, reply.message

        async with asyncio.timeout(110), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(calling())
            for number in range(2, CHANGES + 2):
                store.number = number
                assert await snapshots.refresh_store(source)
                before = len(rig.records("decided"))  # calls go on while it is compiled
                while len(rig.records("decided")) < before + 12:  # noqa: ASYNC110 - calls go on meanwhile
                    await asyncio.sleep(0.001)
            over.set()
        await rig.settled()
        return [record["data"] for record in rig.records("decided")], numbers, rig


async def test_no_decision_comes_from_a_mixture_and_no_call_is_dropped(tmp_path: Path) -> None:
    decided, numbers, rig = await under_load(tmp_path)
    assert len(numbers) == CHANGES + 1
    assert mixed(decided, numbers) == []
    assert {numbers[data["snapshot"]] for data in decided} == set(range(1, CHANGES + 2)), "all of them judged"
    assert all(data["effect"] == "allow" for data in decided)
    assert len(rig.records("finished")) == len(decided)
    assert rig.forwarded_blindly == 0


async def test_the_checker_finds_a_planted_mixture(tmp_path: Path) -> None:
    def leaking(snapshot: Snapshot, holder: SnapshotHolder) -> Snapshot:
        """Budgets are those of the moment, not of the snapshot that the call began with."""
        matchers[snapshot.revision] = snapshot.matcher

        def late(subject: Mapping[str, str | None]) -> Any:
            return matchers[holder.current.revision](subject)

        return replace(snapshot, matcher=late)

    matchers: dict[str, Any] = {}
    decided, numbers, _ = await under_load(tmp_path, leaking)
    assert mixed(decided, numbers)
