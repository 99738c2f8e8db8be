"""Stands where processors stand: takes every parcel, keeps each record once, confirms; and the checker over it."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit_trails import calls

from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_mcp.core.audit import RecordRef
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditFeed
from fulcrum_mcp.processor.parcels import unpack

__all__ = ["Taker", "Written", "faults_of", "open_spool", "write_calls"]


@dataclass
class Written:
    """What a spool has acknowledged."""

    refs: list[RecordRef] = field(default_factory=list[RecordRef])
    inputs: dict[str, bytes] = field(default_factory=dict[str, bytes])


def write_calls(spool: Spool, written: Written, number: int, tenants: Sequence[str] = ("default",)) -> None:
    for tenant in tenants:
        drafts = calls(number, tenant=tenant)
        written.refs += spool.append(drafts)
        written.inputs.update((draft.id, draft.inputs) for draft in drafts if draft.inputs is not None)


def open_spool(root: Path, **settings: int) -> Spool:
    return Spool.open(root, SpoolConfig("os", **settings))


@dataclass
class Taker:
    """Records as an archive would hold them."""

    feed: AuditFeed
    confirms: bool = True
    kept: dict[str, tuple[str, int, str]] = field(default_factory=dict[str, tuple[str, int, str]])
    """record id -> (chain, seq, hash)."""
    inputs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    wrong: list[str] = field(default_factory=list[str])
    deliveries: int = 0
    _seqs: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    _reached: dict[str, int] = field(default_factory=dict[str, int])

    async def step(self, wait: float = 0.05) -> int:
        """Take what is there; how many parcels."""
        found = await self.feed.fetch(64, wait)
        chains: set[str] = set()
        for delivery in found:
            if delivery.fault is not None:
                self.wrong.append(delivery.fault)
                continue
            tenant = delivery.subject.rpartition(".")[2]
            entries, letters = unpack(delivery.subject, tenant, delivery.body, 1 << 62)
            self.wrong += [letter.what for letter in letters]
            for entry in entries:
                record = entry.record
                self.kept[record.id] = (record.chain, record.seq, record.hash)
                self.inputs.update((name, text) for name, _, _, text in entry.inputs)
                self._seqs.setdefault(record.chain, set()).add(record.seq)
                chains.add(record.chain)
        self.deliveries += len(found)
        if self.confirms and chains:
            await self.feed.confirm({chain: self.reached(chain) for chain in chains})
        for delivery in found:
            await delivery.ack()
        return len(found)

    def reached(self, chain: str) -> int:
        """The highest contiguous seq."""
        seq = self._reached.get(chain, 0)
        while seq + 1 in self._seqs[chain]:
            seq += 1
        self._reached[chain] = seq
        return seq

    async def confirm_again(self) -> None:
        await self.feed.confirm({chain: self.reached(chain) for chain in self._seqs})

    async def until(self, written: Written, seconds: float = 30.0) -> None:
        """Take until everything is here, whatever fails meanwhile."""
        async with asyncio.timeout(seconds):
            while faults_of(written, self):
                try:
                    await self.step()
                except Unavailable:
                    await asyncio.sleep(0.05)


def faults_of(written: Written, taker: Taker) -> list[str]:
    """Everything that is not as promised."""
    return [
        *_records({ref.id: (ref.chain, ref.seq, ref.hash) for ref in written.refs}, taker.kept),
        *(f"inputs of {name} are missing" for name in written.inputs if name not in taker.inputs),
        *(f"inputs of {name} differ" for name, text in taker.inputs.items() if written.inputs.get(name) != text),
        *taker.wrong,
    ]


def _records(wanted: Mapping[str, tuple[str, int, str]], kept: Mapping[str, tuple[str, int, str]]) -> Iterable[str]:
    yield from (f"record {name} is missing" for name in wanted if name not in kept)
    yield from (f"record {name} was never written" for name in kept if name not in wanted)
    yield from (f"record {name} differs" for name in kept if name in wanted and kept[name] != wanted[name])
    places = Counter((chain, seq) for chain, seq, _ in kept.values())
    yield from (f"{chain} has {number} records at {seq}" for (chain, seq), number in places.items() if number > 1)
