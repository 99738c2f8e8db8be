"""The archive and the stream of an installation in memory, unkind: any order, any number of times, lost answers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from fulcrum_adapters.memory.archive import MemoryArchive
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.core.frames import INPUTS, RECORD, frame
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ArchivedRecord, DeadLetter, Link, Parcel, StoreBatch, StoreState, StreamLag

__all__ = ["Feed", "Rig", "SmallArchive", "Turns", "parcels_of", "tenant_of", "until"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what others bring about, bounded."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - it comes about on another thread
            await asyncio.sleep(0.002)


def tenant_of(subject: str) -> str | None:
    return subject.partition("/")[2] if subject.startswith("audit/") else None


def parcels_of(writer: str, blocks: Iterable[Sequence[RecordDraft]]) -> list[Parcel]:
    """What a gateway sends: of each group commit one parcel a chain."""
    chains: dict[str, ChainWriter] = {}
    parcels: list[Parcel] = []
    for drafts in blocks:
        parts: dict[str, list[bytes]] = {}
        firsts: dict[str, int] = {}
        for draft in drafts:
            chain = chains.setdefault(draft.tenant, ChainWriter(writer, draft.tenant))
            line, ref = chain.add(draft)
            firsts.setdefault(draft.tenant, ref.seq)
            frames = parts.setdefault(draft.tenant, [])
            frames.append(frame(RECORD, line))
            if draft.inputs is not None:
                frames.append(frame(INPUTS, draft.id.encode() + b"\n" + draft.inputs))
        parcels += [
            Parcel(tenant, chains[tenant].chain, firsts[tenant], chains[tenant].seq, b"".join(frames))
            for tenant, frames in parts.items()
        ]
    return parcels


@dataclass(slots=True)
class _Delivery:
    feed: "Feed"
    number: int
    subject: str
    body: bytes
    attempts: int = 1
    fault: str | None = None

    async def ack(self) -> None:
        if self.number in self.feed.lose:
            self.feed.lose.discard(self.number)
            return
        self.feed.waiting.pop(self.number, None)

    async def again(self, delay: float) -> None:
        self.feed.given_back.append((self.number, delay))
        self.feed.out.discard(self.number)


@dataclass(slots=True)
class Feed:
    """A stream and its one consumer; `redeliver` brings all that is not acknowledged again."""

    waiting: dict[int, tuple[str, bytes]] = field(default_factory=dict[int, tuple[str, bytes]])
    forged: dict[int, str] = field(default_factory=dict[int, str])
    """Messages that nobody of ours has sent, and what is wrong with them."""
    out: set[int] = field(default_factory=set[int])
    lose: set[int] = field(default_factory=set[int])
    """Messages whose first acknowledgement is lost."""
    given_back: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    confirmed: dict[str, int] = field(default_factory=dict[str, int])
    told: list[Mapping[str, int]] = field(default_factory=list[Mapping[str, int]])
    down: bool = False
    random: Random = field(default_factory=lambda: Random(1))
    _numbers: int = 0

    def put(self, subject: str, body: bytes) -> int:
        self._numbers += 1
        self.waiting[self._numbers] = (subject, body)
        return self._numbers

    def publish(self, parcels: Iterable[Parcel]) -> None:
        for parcel in parcels:
            self.put(f"audit/{parcel.tenant}", parcel.body)

    def redeliver(self) -> None:
        self.out.clear()

    async def fetch(self, most: int, wait: float) -> Sequence[_Delivery]:
        if self.down:
            raise Unavailable("NATS is down")
        there = [number for number in self.waiting if number not in self.out]
        if not there:
            await asyncio.sleep(min(wait, 0.005))
            return []
        self.random.shuffle(there)
        taken = there[: self.random.randint(1, most)]
        self.out.update(taken)
        return [_Delivery(self, number, *self.waiting[number], fault=self.forged.get(number)) for number in taken]

    async def confirm(self, stored: Mapping[str, int]) -> None:
        if self.down:
            raise Unavailable("NATS is down")
        self.told.append(dict(stored))
        self.confirmed.update(stored)

    async def lag(self) -> StreamLag:
        if self.down:
            raise Unavailable("NATS is down")
        return StreamLag(len(self.waiting) - len(self.out & set(self.waiting)), len(self.out & set(self.waiting)))

    async def close(self) -> None:
        pass


class SmallArchive(MemoryArchive):
    """An archive that fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: list[Exception] = []
        """Raised by the next calls."""
        self.erased: list[int] = []
        self.tenants: set[str] = set()
        """Whose inputs were stored."""
        self.stores = 0
        """Calls of `store`."""

    def _trouble(self) -> None:
        if self.fail:
            raise self.fail.pop(0)

    def store(
        self, records: Sequence[ArchivedRecord], inputs: Sequence[tuple[str, str, int, bytes]]
    ) -> list[DeadLetter]:
        self._trouble()
        self.stores += 1
        self.tenants |= {tenant for _, tenant, _, _ in inputs}
        return super().store(records, inputs)

    def erase_inputs(self, before: int) -> int:
        self.erased.append(before)
        return 0

    def load(self) -> StoreState:
        self._trouble()
        return super().load()

    def signer(self) -> str | None:
        self._trouble()
        return super().signer()

    def links(self, above: Mapping[str, int], most: int) -> Sequence[Link]:
        self._trouble()
        return super().links(above, most)

    def add(self, batch: StoreBatch) -> None:
        self._trouble()
        super().add(batch)

    def lose_everything(self) -> None:
        """All records; what was checked and signed of them stays."""
        for held in (self.records, self._ids, self._rows, self._places):
            held.clear()

    @property
    def rows(self) -> Mapping[tuple[str, int], ArchivedRecord]:
        return self.records

    @property
    def letters(self) -> list[DeadLetter]:
        return list(self.buried)

    @property
    def inputs(self) -> Mapping[str, tuple[int, bytes]]:
        return self._inputs

    @property
    def numbers(self) -> set[tuple[str, int]]:
        """Of checkpoints: (tenant, number)."""
        return set(self._checkpoints)


class Turns:
    """A leadership that a test gives and takes."""

    def __init__(self, others: list["Turns"] | None = None) -> None:
        self.others = [] if others is None else others
        self.others.append(self)
        self.leads = False
        self.broken = False
        self.asked = 0

    def acquire(self) -> bool:
        self.asked += 1
        if self.broken:
            self.leads = False
            raise Unavailable("the session is lost")
        if not self.leads and not any(other.leads for other in self.others):
            self.leads = True
        return self.leads

    def release(self) -> None:
        self.leads = False


class Rig:
    """One installation: a stream and an archive."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.archive = SmallArchive()
        self.turns: list[Turns] = []

    def leadership(self) -> Turns:
        return Turns(self.turns)
