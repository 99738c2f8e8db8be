"""Following: changes made anywhere hold here soon, those made here at once; they are told; faults are said."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from live_stream import until
from structlog.testing import capture_logs

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.memory.revision import MemoryRevision
from fulcrum_adapters.memory.stream import MemoryBroker, MemoryConfigFeed
from fulcrum_mcp.composition import following
from fulcrum_mcp.composition.following import Follower
from fulcrum_mcp.composition.snapshots import Snapshots
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.snapshot import SnapshotHolder
from fulcrum_mcp.ports import ApiKey, StoredConfig
from fulcrum_mcp.settings import Settings

pytestmark = pytest.mark.anyio


def switch(number: int = 1) -> KillSwitch:
    return KillSwitch(f"ks_{number}", "acme", "agent", f"bot{number}", "x", "ann", number)


class Store(MemoryConfig):
    """A store that can be down or behind, and counts how often it is asked."""

    def __init__(self, revision: MemoryRevision | None = None) -> None:
        super().__init__(revision)
        self.down = False
        self.hidden: StoredConfig | None = None
        """What a replica of the store still shows."""
        self.asked = 0

    def revision(self) -> int:
        self.asked += 1
        if self.down:
            raise Unavailable("store: gone")
        return super().revision() if self.hidden is None else self.hidden.revision

    def read(self) -> StoredConfig:
        if self.down:
            raise Unavailable("store: gone")
        return super().read() if self.hidden is None else self.hidden


class Replica:
    """One process's follower."""

    def __init__(self, folder: Path, store: Store, broker: MemoryBroker | None = None) -> None:
        self.snapshots = Snapshots(Settings(data=folder), store)
        self.holder: SnapshotHolder = self.snapshots.first()
        self.feed = None if broker is None else MemoryConfigFeed(broker)
        self.follower = Follower(self.snapshots, self.holder, feed=self.feed)

    @property
    def stopped(self) -> list[str]:
        return [each.target for each in self.holder.current.switches.switches]


@asynccontextmanager
async def replicas(folder: Path, store: Store, *brokers: MemoryBroker | None) -> AsyncIterator[list[Replica]]:
    made = [Replica(folder, store, broker) for broker in brokers]
    for each in made:
        each.follower.start()
    try:
        yield made
    finally:
        for each in made:
            await each.follower.close()
            await each.follower.close()
            if each.feed is not None:
                await each.feed.close()


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked so seldom that only news can bring a change."""
    monkeypatch.setattr(following, "_STORE_POLL", 3600.0)


async def test_without_a_feed_a_change_elsewhere_is_found_by_looking(tmp_path: Path) -> None:
    store = Store()
    async with replicas(tmp_path, store, None, None) as both:
        async with asyncio.timeout(20):
            store.switches.add(switch())
            await until(lambda: all(each.stopped == ["bot1"] for each in both), "both know it")
        assert [each.follower.state for each in both] == ["", ""]


@pytest.mark.usefixtures("seldom")
async def test_a_change_holds_here_when_it_is_answered_and_elsewhere_by_news(tmp_path: Path) -> None:
    store, broker = Store(), MemoryBroker()
    async with replicas(tmp_path, store, broker, broker) as (here, there):
        await until(lambda: broker.revision is not None, "the first to come tells where it stands")
        store.switches.add(switch())
        await asyncio.to_thread(here.follower.changed)
        assert here.stopped == ["bot1"], "when the change is answered it holds"
        async with asyncio.timeout(20):
            await until(lambda: there.stopped == ["bot1"], "news came")
        assert broker.revision == store.revision()
        assert broker.digest == here.holder.current.revision == there.holder.current.revision
        assert [here.follower.state, there.follower.state] == ["", ""]


async def test_replica_that_starts_without_news_uses_the_store_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_STORE_POLL", 0.3)
    monkeypatch.setattr(following, "_AGAIN", 0.05)
    store, broker = Store(), MemoryBroker(down=True)
    async with replicas(tmp_path, store, broker) as (replica,):
        store.switches.add(switch())
        await until(lambda: replica.stopped == ["bot1"], "found by looking")
        assert replica.follower.state == "no news of changes (none has come yet); the store is asked every 0 s"
        broker.down = False
        await until(lambda: broker.revision == store.revision(), "told once it can be")
        await until(lambda: replica.follower.state == "", "all is well")


@pytest.mark.usefixtures("seldom")
async def test_store_that_is_down_leaves_the_last_snapshot_and_is_said_with_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, broker = Store(), MemoryBroker()
    store.switches.add(switch())
    async with replicas(tmp_path, store, broker) as (replica,):
        before = replica.holder.current
        store.down = True
        await replica.follower.look()
        assert replica.holder.current is before
        assert replica.follower.state.startswith("the store is not read; going on with the configuration of 0 s ago")
        monkeypatch.setattr(replica.follower, "_read_at", replica.follower._read_at - 90)
        assert "of 90 s ago" in replica.follower.state
        store.down = False
        store.switches.add(switch(2))
        with capture_logs() as logs:
            await replica.follower.look()
            await replica.follower.look()
        assert [each["event"] for each in logs] == ["configuration read again"]
        assert replica.stopped == ["bot1", "bot2"]
        assert replica.follower.fault is None
        assert replica.follower.age < 60


async def test_looking_goes_on_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_POLL", 0.01)
    store = Store()
    async with replicas(tmp_path, store, None) as (replica,):
        store.down = True
        await until(lambda: replica.follower.fault, "the fault is known")
        store.down = False
        store.switches.add(switch())
        await until(lambda: replica.stopped == ["bot1"], "it goes on")


@pytest.mark.usefixtures("seldom")
async def test_what_was_announced_and_is_not_shown_yet_is_asked_for_again_soon(tmp_path: Path) -> None:
    store, broker = Store(), MemoryBroker()
    async with replicas(tmp_path, store, broker) as (replica,):
        await until(lambda: broker.revision is not None, "it has told where it stands")
        store.hidden = store.read()
        store.switches.add(switch())
        await MemoryConfigFeed(broker).announce(MemoryConfig.revision(store), "d")
        asked = store.asked
        await until(lambda: store.asked >= asked + 3, "asked again and again")
        assert replica.stopped == []
        store.hidden = None
        await until(lambda: replica.stopped == ["bot1"], "shown at last")
        assert replica.follower._pause() == 3600, "and then left alone"


@pytest.mark.usefixtures("seldom")
async def test_changes_of_a_store_that_was_restored_are_told_though_their_numbers_are_old(tmp_path: Path) -> None:
    store, broker = Store(), MemoryBroker(revision=1_000)
    async with replicas(tmp_path, store, broker, broker) as (here, there):
        store.switches.add(switch())
        await asyncio.to_thread(here.follower.changed)
        async with asyncio.timeout(20):
            await until(lambda: there.stopped == ["bot1"], "told all the same")


@pytest.mark.usefixtures("seldom")
async def test_whoever_remembers_keys_is_told_of_each_change_and_of_nothing_else(tmp_path: Path) -> None:
    revision = MemoryRevision()
    store, keys = Store(revision), MemoryKeys(revision)
    async with replicas(tmp_path, store, None) as (replica,):
        told: list[int] = []
        replica.follower.on_revision.append(lambda: told.append(replica.holder.current.config_revision))
        before = replica.holder.current.revision
        keys.add(ApiKey("k", "acme", "a", "n", (), (), 1))
        await replica.follower.look()
        await replica.follower.look()
        assert told == [store.revision()]
        assert replica.holder.current.revision == before, "keys are no part of what calls are judged by"


async def test_whoever_is_told_in_vain_stops_nobody(tmp_path: Path) -> None:
    store = Store()
    async with replicas(tmp_path, store, None) as (replica,):

        def broken() -> None:
            raise RuntimeError("a bug")

        told: list[int] = []
        replica.follower.on_revision += [broken, lambda: told.append(1)]
        store.switches.add(switch())
        await replica.follower.look()
        assert told == [1]


async def test_change_after_the_end_of_the_loop_is_no_fault(tmp_path: Path) -> None:
    def ended() -> Follower:
        async def make() -> Follower:
            return Replica(tmp_path, Store()).follower

        return asyncio.run(make())

    follower = await asyncio.to_thread(ended)
    follower.changed()


@pytest.mark.usefixtures("seldom")
async def test_changes_that_come_at_once_all_hold_and_the_last_is_announced(tmp_path: Path) -> None:
    store, broker = Store(), MemoryBroker()
    async with replicas(tmp_path, store, broker, broker) as both:

        def change(number: int) -> None:
            store.switches.add(switch(number))
            both[number % 2].follower.changed()

        await asyncio.gather(*(asyncio.to_thread(change, number) for number in range(20)))
        await until(lambda: all(len(each.stopped) == 20 for each in both), "both know all of them")
        await until(lambda: broker.revision == store.revision(), "the last one is what a newcomer hears")


def published(word: str) -> PolicySource:
    return PolicySource((PolicyModule("p.rego", f"package fulcrum.policies.{word}\n\nallow := true\n"),))


async def test_published_policies_replace_the_starter_and_are_kept_when_others_change(tmp_path: Path) -> None:
    store = Store()
    async with replicas(tmp_path, store, None) as (replica,):
        assert replica.snapshots.observing
        store.policies.put(published("one"), "ann", 1)
        await replica.follower.look()
        engine = replica.holder.current.engine
        assert engine.info.names == ("one",)
        assert not replica.snapshots.observing
        store.switches.add(switch())
        await replica.follower.look()
        assert replica.holder.current.engine is engine, "the same policies are not compiled again"
        store.policies.put(published("two"), "ann", 1)
        await replica.follower.look()
        assert replica.holder.current.engine.info.names == ("two",)


async def test_published_policies_that_cannot_be_used_leave_the_old_ones_and_switches_hold(tmp_path: Path) -> None:
    store = Store()
    async with replicas(tmp_path, store, None) as (replica,):
        store.policies.put(published("one"), "ann", 1)
        await replica.follower.look()
        store.policies.put(PolicySource((PolicyModule("p.rego", "package fulcrum.policies.p\n\nallow if {"),)), "a", 1)
        store.switches.add(switch())
        await replica.follower.look()
        assert replica.holder.current.engine.info.names == ("one",)
        assert replica.stopped == ["bot1"]
        assert replica.snapshots.refused is not None
        store.policies.put(published("two"), "ann", 1)
        await replica.follower.look()
        assert replica.snapshots.refused is None


def test_a_folder_wins_over_what_is_published(tmp_path: Path) -> None:
    store = Store()
    store.policies.put(published("one"), "ann", 1)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "p.rego").write_text("package fulcrum.policies.mine\n\nallow := true\n")
    snapshots = Snapshots(Settings(data=tmp_path, policies=mine), store)
    assert snapshots.first().current.engine.info.names == ("mine",)


async def test_server_without_any_policies_denies_until_some_are_published(tmp_path: Path) -> None:
    store = Store()
    snapshots = Snapshots(Settings(data=tmp_path), store, None)
    holder = snapshots.first()
    assert not holder.current.engine.info.names
    assert not snapshots.observing
    assert snapshots.where == ""
    store.policies.put(published("one"), "ann", 1)
    assert await snapshots.refresh_store(holder)
    assert holder.current.engine.info.names == ("one",)


async def test_kill_switch_does_not_wait_while_a_folder_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_POLL", 0.01)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "p.rego").write_text("package fulcrum.policies.one\n\nallow := true\n")
    store = Store()
    snapshots = Snapshots(Settings(data=tmp_path, policies=mine), store)
    holder = snapshots.first()
    gate, entered = threading.Event(), threading.Event()
    admitted = snapshots._admitted

    def slow() -> PolicySource | None:
        entered.set()
        assert gate.wait(10)
        return admitted()

    monkeypatch.setattr(snapshots, "_admitted", slow)
    follower = Follower(snapshots, holder)
    follower.start()
    try:
        (mine / "p.rego").write_text("package fulcrum.policies.two\n\nallow := true\n")
        await until(entered.is_set, "the folder is being tried")
        store.switches.add(switch())
        await until(lambda: holder.current.switches.switches, "the switch holds")
        assert holder.current.engine.info.names == ("one",)
        gate.set()
        await until(lambda: holder.current.engine.info.names == ("two",), "the policies are live")
        assert holder.current.switches.switches
    finally:
        gate.set()
        await follower.close()


async def test_a_bug_of_the_feed_does_not_end_the_telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_AGAIN", 0.01)
    store, broker = Store(), MemoryBroker()
    replica = Replica(tmp_path, store, broker)
    assert replica.feed is not None
    announce, bugs = replica.feed.announce, [ValueError("a bug")]

    async def buggy(revision: int, digest: str) -> None:
        if bugs:
            raise bugs.pop()
        await announce(revision, digest)

    monkeypatch.setattr(replica.feed, "announce", buggy)
    replica.follower.start()
    try:
        await until(lambda: broker.revision == store.revision(), "told all the same")
    finally:
        await replica.follower.close()
    assert not bugs
