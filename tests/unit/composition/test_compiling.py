"""Policies are compiled beside the event loop: the newest wins, nothing is mixed, kill switches do not wait."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from live_stream import until

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.composition import compiling
from fulcrum_mcp.composition.compiling import compile_beside
from fulcrum_mcp.composition.following import Follower
from fulcrum_mcp.composition.snapshots import Snapshots
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings

pytestmark = pytest.mark.anyio


def published(*words: str) -> PolicySource:
    modules = [PolicyModule(f"{word}.rego", f"package fulcrum.policies.{word}\n\nallow := true\n") for word in words]
    return PolicySource(tuple(modules), {}, words[0])


class Slow:
    """Stands where `compile_beside` does: a set is compiled once it may be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        self.given_up: list[str] = []
        self.faults: dict[str, Exception] = {}
        monkeypatch.setattr("fulcrum_mcp.composition.snapshots.compile_beside", self._compile)

    async def _compile(self, source: PolicySource, max_input: int) -> RegoEngine:
        self.begun.append(source.name)
        try:
            await self.gate(source.name).wait()
        except asyncio.CancelledError:
            self.given_up.append(source.name)
            raise
        if source.name in self.faults:
            raise self.faults[source.name]
        return await compile_beside(source, max_input)

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())


class Place:
    """A store, what follows it, and the compiler between them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slow = Slow(monkeypatch)
        self.store = MemoryConfig()
        self.snapshots = Snapshots(Settings(data=folder), self.store)
        self.holder = self.snapshots.first()

    async def publish(self, *words: str) -> None:
        self.store.policies.put(published(*words), "ann", 1)
        await self.read()

    async def read(self) -> None:
        await self.snapshots.read_store(self.holder)
        await asyncio.sleep(0)  # what was begun has its first turn

    def throw(self, number: int) -> KillSwitch:
        switch = KillSwitch(f"ks_{number}", "acme", "agent", f"bot{number}", "x", "ann", number)
        self.store.switches.add(switch)
        return switch

    @property
    def now(self) -> tuple[tuple[str, ...], list[str], int]:
        """The policies, the stopped agents and the number of budgets that hold."""
        current = self.holder.current
        budgets = len(current.matcher({"tenant": "acme", "global": ""}))
        return current.engine.info.names, [each.target for each in current.switches.switches], budgets


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


async def test_while_policies_are_compiled_switches_stop_more_and_nothing_is_loosened(place: Place) -> None:
    before = place.throw(1)
    await place.read()
    await place.publish("one")
    place.throw(2)
    place.store.switches.delete("acme", before.id)
    place.store.budgets.add(Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 1}))
    await place.read()
    assert place.now == (("observe",), ["bot1", "bot2"], 0)
    assert place.holder.current.config_revision < place.snapshots.revision == place.store.revision()
    place.slow.gate("one").set()
    await place.snapshots.settled()
    assert place.now == (("one",), ["bot2"], 1)
    assert place.holder.current.config_revision == place.store.revision()
    assert place.slow.begun == ["one"], "it was compiled once for all that came meanwhile"


async def test_the_newest_wins_and_the_one_before_is_given_up(place: Place) -> None:
    await place.publish("one")
    await place.publish("two")
    place.slow.gate("one").set()
    await until(lambda: place.slow.given_up == ["one"], "nobody wants the first any more")
    assert place.now[0] == ("observe",)
    place.slow.gate("two").set()
    await place.snapshots.settled()
    assert place.now[0] == ("two",)
    assert place.slow.begun == ["one", "two"]


async def test_an_older_one_that_is_compiled_already_does_not_come_over_a_newer_one(place: Place) -> None:
    """The first is done in the very turn of the event loop in which the second is read."""
    await place.publish("one")
    swapped: list[tuple[str, ...]] = []
    place.holder.on_swap.append(lambda snapshot: swapped.append(snapshot.engine.info.names))
    stored = place.store.policies.put(published("two"), "ann", 2)
    place.slow.gate("two").set()
    place.slow.gate("one").set()
    place.snapshots._newest = place.store.read()
    place.snapshots._begin(stored, place.holder)
    await place.snapshots.settled()
    assert swapped == [("two",)]
    assert place.now[0] == ("two",)


async def test_going_back_to_what_is_live_needs_no_compilation(place: Place) -> None:
    place.slow.gate("one").set()
    await place.publish("one")
    await place.snapshots.settled()
    engine = place.holder.current.engine
    await place.publish("two")
    await place.publish("one")
    assert place.holder.current.config_revision == place.store.revision()
    await place.snapshots.settled()
    assert place.holder.current.engine is engine
    assert place.slow.given_up == ["two"]


@pytest.mark.parametrize("fault", [Invalid("p.rego: broken"), MemoryError()])
async def test_whatever_fails_the_rest_of_the_configuration_holds(place: Place, fault: Exception) -> None:
    place.slow.faults["one"] = fault
    place.slow.gate("one").set()
    await place.publish("one")
    place.throw(1)
    await place.read()
    await place.snapshots.settled()
    assert place.now == (("observe",), ["bot1"], 0)
    assert place.snapshots.refused == (str(fault) or type(fault).__name__)
    assert place.holder.current.config_revision == place.store.revision()


async def test_a_follower_finds_switches_while_it_compiles_and_ends_without_waiting(place: Place) -> None:
    follower = Follower(place.snapshots, place.holder)
    follower.start()
    place.store.policies.put(published("one"), "ann", 1)
    await until(lambda: place.slow.begun == ["one"], "it is being compiled")
    place.throw(1)
    await until(lambda: place.now[1] == ["bot1"], "the switch holds")
    async with asyncio.timeout(5):
        await follower.close()
    assert place.slow.given_up == ["one"]


async def test_what_is_compiled_beside_is_used_here_and_native_parts_never_leave_their_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    engine = await compile_beside(published("one", "two"), 1000)
    verdicts = await engine.evaluate("call", b"{}")
    assert [(each.policy, each.allow) for each in verdicts] == [("one", True), ("two", True)]
    with pytest.raises(Invalid, match=r"one\.rego"):
        await compile_beside(PolicySource((PolicyModule("one.rego", "package fulcrum.policies.one\nallow if x"),)), 9)
    assert complaints == []


async def test_cancelled_it_reads_no_further_module(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    read: list[str] = []

    def engine(source: PolicySource, *, max_input: int, between: compiling._Turns) -> None:
        assert max_input == 9
        try:
            for module in source.modules:
                between()
                read.append(module.path)
                reached.set()
                assert go_on.wait(10)
        finally:
            ended.set()

    monkeypatch.setattr(compiling, "RegoEngine", engine)
    task = asyncio.create_task(compile_beside(published("one", "two"), 9))
    await until(reached.is_set, "it has begun")
    task.cancel()
    await asyncio.wait([task])
    go_on.set()
    await until(ended.is_set, "it ends")
    assert read == ["one.rego"]
