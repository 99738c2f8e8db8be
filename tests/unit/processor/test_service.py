import asyncio
from random import Random

import pytest
from audit_trails import calls, verdict
from hypothesis import given, settings
from hypothesis import strategies as st
from processor_doubles import Feed, Rig, parcels_of, tenant_of, until

from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.frames import RECORD, frame, split
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import Parcel
from fulcrum_mcp.processor.leading import LeaderConfig
from fulcrum_mcp.processor.service import EventProcessor, EventProcessorConfig
from fulcrum_mcp.processor.storing import StorerConfig

FAST = EventProcessorConfig(
    storer=StorerConfig(wait=0.005, linger=0.005, longest=0.01),
    leader=LeaderConfig(poll=0.002, checkpoint_every=0.0, longest=0.01),
    lag_every=0.002,
)


class Installation(Rig):
    """Several processors, started and ended at will."""

    def __init__(self, keys: AuditKeys) -> None:
        super().__init__()
        self.keys = keys
        self.maintained = 0
        self.running: list[tuple[EventProcessor, asyncio.Task[None]]] = []

    def start(self) -> EventProcessor:
        processor = EventProcessor(
            self.feed,
            self.archive,
            self.archive,
            self.leadership(),
            self.keys,
            tenant_of,
            maintain=self.keep,
            config=FAST,
        )
        self.running.append((processor, asyncio.get_running_loop().create_task(processor.run())))
        return processor

    def keep(self) -> None:
        self.maintained += 1

    async def kill(self) -> None:
        """The oldest one ends in the middle of whatever it does, its leadership with it."""
        _, task = self.running.pop(0)
        task.cancel()
        await asyncio.wait([task], timeout=20)
        self.turns.pop(0).leads = False
        self.feed.redeliver()

    async def stop(self) -> None:
        for processor, _ in self.running:
            processor.stop()
            processor.stop()
        async with asyncio.timeout(20):
            await asyncio.gather(*(task for _, task in self.running))

    def verdict(self) -> object:
        return verdict(export_trail(self.archive, self.keys, None, "2026-08-01T12:00:00Z"), self.keys)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> AuditKeys:
    return AuditKeys(tmp_path_factory.mktemp("keys"))


@pytest.mark.anyio
async def test_it_stores_checks_signs_confirms_and_tells_its_figures(keys: AuditKeys) -> None:
    here = Installation(keys)
    processor = here.start()
    here.feed.publish(parcels_of("w", [calls(4), calls(4, tenant="acme")]))
    here.feed.put("audit/acme", b"noise")
    await until(lambda: here.feed.confirmed == {"w.default": 8, "w.acme": 8} and processor.leader.unsigned == 0)
    await until(lambda: (processor.figures().messages, processor.figures().unacknowledged) == (0, 0))
    await until(lambda: processor.figures().lag_seconds == 0.0)
    figures = processor.figures()
    assert (figures.stored, figures.dead_letters, figures.leader, dict(figures.broken)) == (16, 1, True, {})
    assert (figures.unsigned, figures.unacknowledged, figures.lag_seconds, dict(figures.faults)) == (0, 0, 0.0, {})
    assert figures.checkpoints >= 2
    assert figures.last_checkpoint is not None
    assert here.maintained == len(here.archive.erased) == 1
    await here.stop()
    assert here.verdict() is None
    assert not processor.figures().leader


@pytest.mark.anyio
async def test_figures_say_what_does_not_work_and_how_far_behind_it_is(keys: AuditKeys) -> None:
    here = Installation(keys)
    here.archive.fail = [Unavailable("Postgres is down")] * 1_000_000
    here.feed.publish(parcels_of("w", [calls(1) for _ in range(200)]))
    processor = here.start()
    await until(lambda: set(processor.figures().faults) == {"archive", "checks"})
    await until(lambda: (processor.figures().messages or 0) + (processor.figures().unacknowledged or 0) == 200)
    oldest = here.feed.waiting  # records of the tests are dated 2026, so the lag is the distance from then
    assert oldest
    here.feed.down = True
    await until(lambda: processor.figures().faults.get("stream") == "NATS is down")
    assert processor.figures().messages is None
    here.archive.fail, here.feed.down = [], False
    await until(lambda: len(here.archive.rows) == 400 and not processor.figures().faults)
    await here.stop()
    assert here.verdict() is None


@pytest.mark.anyio
async def test_a_gap_and_a_broken_chain_show_in_the_figures(keys: AuditKeys) -> None:
    here = Installation(keys)
    late = parcels_of("w", [calls(1), calls(1)])
    here.feed.publish(late[1:])
    fork = parcels_of("v", [calls(1), calls(1)])
    here.feed.publish([fork[0], parcels_of("v", [calls(1), calls(1)])[1]])
    processor = here.start()
    await until(lambda: "w.default" in processor.figures().gaps and "v.default" in processor.figures().broken)
    missing, age = processor.figures().gaps["w.default"]
    assert missing == 1
    assert age >= 0
    here.feed.publish(late[:1])
    await until(lambda: not processor.figures().gaps)
    await here.stop()
    assert "chain v.default seq 3" in str(here.verdict())


def _split(parcel: Parcel, chance: Random) -> list[Parcel]:
    """The same frames in other parcels: a gateway that sends again may cut anew."""
    frames, _, _ = split(parcel.body)
    parts: list[list[bytes]] = []
    for kind, payload in frames:
        if not parts or (kind == RECORD and chance.random() < 0.5):
            parts.append([])
        parts[-1].append(frame(kind, payload))
    return [Parcel(parcel.tenant, parcel.chain, 0, 0, b"".join(part)) for part in parts]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), processors=st.integers(1, 3), kills=st.integers(0, 4))
def test_any_order_any_repetition_any_split_any_death_leaves_each_record_once(
    keys: AuditKeys, seed: int, processors: int, kills: int
) -> None:
    chance = Random(seed)
    parcels = [
        parcel
        for writer in ("w1", "w2")
        for parcel in parcels_of(
            writer, [calls(chance.randint(1, 3), tenant=chance.choice(("a", "b", "b.c"))) for _ in range(12)]
        )
    ]
    lines = sum(parcel.last - parcel.first + 1 for parcel in parcels)
    sent = [*parcels, *chance.choices(parcels, k=10)]
    sent = [part for parcel in sent for part in (_split(parcel, chance) if chance.random() < 0.5 else [parcel])]
    chance.shuffle(sent)

    async def run() -> None:
        here = Installation(keys)
        here.feed.random = chance
        here.feed.publish(sent[: len(sent) // 2])
        here.feed.lose = {number for number in here.feed.waiting if chance.random() < 0.3}
        for _ in range(processors):
            here.start()
        for _ in range(kills):
            await asyncio.sleep(chance.random() * 0.02)
            await here.kill()
            here.start()
        here.feed.publish(sent[len(sent) // 2 :])
        here.archive.fail = [Unavailable("down")] * chance.randint(0, 3)
        while here.feed.waiting:
            await asyncio.sleep(0.005)
            if not chance.randint(0, 5):
                here.feed.redeliver()
        await until(lambda: sum(here.feed.confirmed.values()) == lines)
        await here.stop()
        assert len(here.archive.rows) == lines
        assert here.archive.letters == []
        signed = [number for tenant, number in sorted(here.archive.numbers) if tenant == "b"]
        assert signed == list(range(1, len(signed) + 1))
        assert here.verdict() is None

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await run()

    asyncio.run(bounded())


def test_a_planted_loss_is_found(keys: AuditKeys) -> None:
    """The law above would not hold if a storer acknowledged what it did not store."""

    async def run() -> object:
        here = Installation(keys)
        here.feed = Feed()
        here.feed.publish(parcels_of("w", [calls(1) for _ in range(5)]))
        here.feed.waiting.pop(3)
        here.start()
        await until(lambda: not here.feed.waiting)
        await here.stop()
        return here.verdict()

    assert "seq 5 is missing" in str(asyncio.run(run()))
