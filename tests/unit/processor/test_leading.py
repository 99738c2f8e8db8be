import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from audit_trails import calls, verdict
from processor_doubles import Rig, parcels_of, until
from structlog.testing import capture_logs

from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import StoreBatch
from fulcrum_mcp.processor.leading import Leader, LeaderConfig
from fulcrum_mcp.processor.parcels import unpack

pytestmark = pytest.mark.anyio

FAST = LeaderConfig(poll=0.005, checkpoint_every=0.0, longest=0.02, upkeep_every=0.0)


class Running:
    def __init__(self, rig: Rig, keys: AuditKeys, config: LeaderConfig = FAST) -> None:
        self.turns = rig.leadership()
        self.kept = 0
        self.leader = Leader(rig.archive, self.turns, keys, rig.feed, self.keep, config)
        self.stopping = asyncio.Event()

    def keep(self) -> None:
        self.kept += 1
        if self.kept == 1:
            raise Unavailable("not now")

    async def __aenter__(self) -> Self:
        self.task = asyncio.get_running_loop().create_task(self.leader.run(self.stopping))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping.set()
        async with asyncio.timeout(10):
            await self.task


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    return AuditKeys(tmp_path)


def store(rig: Rig, number: int, writer: str = "w") -> None:
    for parcel in parcels_of(writer, [calls(number)]):
        rig.archive.store([entry.record for entry in unpack("s", "default", parcel.body, 2**60)[0]], [])


async def test_the_leader_checks_signs_confirms_and_keeps_the_store(keys: AuditKeys) -> None:
    rig = Rig()
    async with Running(rig, keys) as running:
        store(rig, 5)
        await until(lambda: rig.feed.confirmed == {"w.default": 10} and running.kept > 1)
        assert running.leader.leads
        assert running.leader.checkpoints == 1
        assert running.leader.signed_at is not None
    assert not running.leader.leads
    assert not running.turns.leads
    assert verdict(export_trail(rig.archive, keys, None, "2026-08-01T12:00:00Z"), keys) is None


async def test_only_one_leads_and_another_takes_over_when_it_ends(keys: AuditKeys) -> None:
    rig = Rig()
    async with Running(rig, keys) as first:
        await until(lambda: first.leader.leads)
        async with Running(rig, keys) as second:
            store(rig, 5)
            await until(lambda: first.leader.checkpoints == 1)
            assert not second.leader.leads
            assert second.kept == 0
            first.stopping.set()
            await until(lambda: second.leader.leads)
            store(rig, 5, "v")
            await until(lambda: second.leader.checkpoints == 1)
    assert sorted(number for _, number in rig.archive.numbers) == [1, 2]


async def test_it_stops_at_once_when_the_leadership_is_lost(keys: AuditKeys) -> None:
    rig = Rig()
    async with Running(rig, keys, LeaderConfig(poll=0.005, checkpoint_every=3600, longest=0.02)) as running:
        await until(lambda: running.leader.leads)
        running.turns.broken = True
        await until(lambda: running.leader.fault == "the session is lost")
        store(rig, 5)
        asked = running.turns.asked
        await until(lambda: running.turns.asked > asked + 3)
        assert not running.leader.leads
        assert rig.archive.numbers == set()
        assert rig.archive.load().chains["w.default"].size == 0
        running.turns.broken = False
        await until(lambda: running.leader.leads and running.leader.fault is None)
    assert len(rig.archive.numbers) == 1  # the last thing it does is to sign


async def test_a_rival_that_signed_first_ends_the_lead_and_the_next_number_is_taken(keys: AuditKeys) -> None:
    rig = Rig()
    refuse = [Unavailable("number 1 is there")]
    add = rig.archive.add

    def rival(batch: StoreBatch) -> None:
        if batch.checkpoints and refuse:
            raise refuse.pop()
        add(batch)

    rig.archive.add = rival  # type: ignore[method-assign]
    with capture_logs() as logs:
        async with Running(rig, keys):
            store(rig, 5)
            await until(lambda: len(rig.archive.numbers) == 1)
    assert any(entry.get("reason") == "number 1 is there" for entry in logs)


async def test_everything_is_confirmed_again_now_and_then_and_at_each_begin(keys: AuditKeys) -> None:
    rig = Rig()
    store(rig, 1)
    store(rig, 1, "v")
    config = LeaderConfig(poll=0.005, confirm_every=0.03, longest=0.02)
    async with Running(rig, keys, config):
        everything = {"w.default": 2, "v.default": 2}
        await until(lambda: rig.feed.told.count(everything) >= 3)


async def test_what_could_not_be_confirmed_is_said_later(keys: AuditKeys) -> None:
    rig = Rig()
    rig.feed.down = True
    async with Running(rig, keys) as running:
        store(rig, 5)
        await until(lambda: running.leader.confirm_fault == "NATS is down" and running.leader.checkpoints == 1)
        rig.feed.down = False
        await until(lambda: rig.feed.confirmed == {"w.default": 10})
        assert running.leader.confirm_fault is None


async def test_an_archive_that_fails_anywhere_leaves_a_trail_that_verifies(keys: AuditKeys) -> None:
    rig = Rig()
    async with Running(rig, keys) as running:
        for number in range(12):
            store(rig, 2, f"w{number}")
            rig.archive.fail = [Unavailable("down"), RuntimeError("a bug")] * (number % 3)
            await until(lambda: not rig.archive.fail)
        await until(lambda: len(rig.feed.confirmed) == 12)
        await until(lambda: running.leader.unsigned == 0)
    assert verdict(export_trail(rig.archive, keys, None, "2026-08-01T12:00:00Z"), keys) is None


async def test_a_key_that_has_not_signed_the_trail_never_does_and_is_told_before_it_has_to(
    keys: AuditKeys, tmp_path: Path
) -> None:
    rig, foreign = Rig(), AuditKeys(tmp_path / "another host")
    config = LeaderConfig(poll=0.005, checkpoint_every=0.0, longest=0.02, ask_key_every=0.0)
    async with Running(rig, keys, config) as first:
        await until(lambda: first.leader.leads)
        async with Running(rig, foreign, config) as second:
            await until(lambda: second.turns.asked > 3)
            assert second.leader.fault is None  # nothing is signed: nobody knows
            store(rig, 5)
            await until(lambda: second.leader.fault is not None)
            for part in (keys.key_id, foreign.key_id, "FULCRUM_AUDIT_SIGNING_KEY", "keys/audit.key"):
                assert part in str(second.leader.fault)
            first.stopping.set()
            await until(lambda: not first.turns.leads)
            store(rig, 5, "v")
            asked = second.turns.asked
            await until(lambda: second.turns.asked > asked + 3)
            assert (second.leader.leads, second.leader.checkpoints, len(rig.archive.numbers)) == (False, 0, 1)
            async with Running(rig, keys, config) as third:
                await until(lambda: third.leader.checkpoints == 1)
    assert verdict(export_trail(rig.archive, keys, None, "2026-08-01T12:00:00Z"), keys) is None


async def test_two_keys_on_an_empty_trail_and_only_the_first_signs(keys: AuditKeys, tmp_path: Path) -> None:
    rig = Rig()
    store(rig, 5)
    async with Running(rig, keys) as one, Running(rig, AuditKeys(tmp_path / "another host")) as two:
        await until(lambda: len(rig.archive.numbers) == 1)
        signed = one if one.leader.checkpoints else two
        signed.stopping.set()
        await until(lambda: not signed.turns.leads)
        store(rig, 5, "v")
        other = two if signed is one else one
        await until(lambda: "signed with the key" in str(other.leader.fault))
    assert len(rig.archive.numbers) == 1


async def test_a_gap_that_lasts_is_told_once_and_again_when_it_is_another(keys: AuditKeys) -> None:
    rig = Rig()
    parcels = parcels_of("w", [calls(1), calls(1), calls(1), calls(1)])

    def arrive(number: int) -> None:
        entries = unpack("s", "default", parcels[number].body, 2**60)[0]
        rig.archive.store([entry.record for entry in entries], [])

    def told() -> list[tuple[str, int]]:
        return [(entry["chain"], entry["missing"]) for entry in logs if entry["event"] == "audit.gap"]

    with capture_logs() as logs:
        async with Running(rig, keys, replace(FAST, gap_told=0.05)) as running:
            arrive(1)
            arrive(3)
            await until(lambda: told() == [("w.default", 1)])
            arrive(0)
            await until(lambda: told() == [("w.default", 1), ("w.default", 5)])
            arrive(2)
            await until(lambda: not running.leader.gaps)
    assert told() == [("w.default", 1), ("w.default", 5)]
