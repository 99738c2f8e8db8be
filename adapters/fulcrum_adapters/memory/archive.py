"""The archive, its leader's view and its reader in memory: for tests and dry runs."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fulcrum_adapters.memory.audit import MemoryAuditStore
from fulcrum_mcp.core.checkpoint import ChainState, open_sealed
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ArchivedRecord, DeadLetter, Link, StoreBatch, StoreState

__all__ = ["MemoryArchive"]

_ON_ITS_WAY = 900_000_000
"""Microseconds for which a record that others follow may be on its way here."""
_TAKEN = "its place or its id is taken by another record"


class MemoryArchive(MemoryAuditStore):
    """An `Archive`, the `Chains` and the `AuditReader` over it; any number of threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self.records: dict[tuple[str, int], ArchivedRecord] = {}
        """By chain and seq."""
        self._ids: dict[str, ArchivedRecord] = {}
        self._buried: dict[tuple[str, bytes], DeadLetter] = {}
        self._after = ""

    @property
    def buried(self) -> Sequence[DeadLetter]:
        """Dead letters, oldest first."""
        return list(self._buried.values())

    def store(
        self, records: Sequence[ArchivedRecord], inputs: Sequence[tuple[str, str, int, bytes]]
    ) -> list[DeadLetter]:
        """See `Archive`."""
        letters: list[DeadLetter] = []
        batch = StoreBatch()
        with self._lock:
            old: set[str] = set()
            for record in records:
                place = (record.chain, record.seq)
                there = self.records.get(place, self._ids.get(record.id))
                if there is None:
                    self.records[place] = self._ids[record.id] = record
                    batch.rows.append(_row(record))
                    self._chains.setdefault(record.chain, _unknown(record))
                elif there.hash == record.hash:
                    old.add(record.id)
                else:
                    old.add(record.id)
                    what = f"chain {record.chain} seq {record.seq}: {_TAKEN}"
                    letters.append(DeadLetter(record.chain.partition(".")[0], what, record.line))
            batch.inputs = [(record, time, text) for record, _, time, text in inputs if record not in old]
            super().add(batch)
            self.bury(letters)
        return letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """See `Archive`."""
        with self._lock:
            for letter in letters:
                key = (letter.source, letter.body or letter.what.encode())
                if key not in self._buried:
                    self._buried[key] = letter
                    self._faults.append(letter)

    def erase_inputs(self, before: int) -> int:
        """See `Archive`."""
        with self._lock:
            return super().erase_inputs(before)

    def load(self) -> StoreState:
        """See `Chains`."""
        with self._lock:
            return super().load()

    def signer(self) -> str | None:
        """See `Chains`."""
        with self._lock:
            if not self._checkpoints:
                return None
            sealed = open_sealed(self._checkpoints[min(self._checkpoints)])
        if sealed is None:
            raise Unavailable("the first checkpoint is damaged")
        return str(sealed.fields.get("key"))

    def links(self, above: Mapping[str, int], most: int) -> Sequence[Link]:
        """See `Chains`; in turns, so that a chain that waits for a missing record does not hold up the others."""
        with self._lock:
            found = sorted(
                Link(record.chain, record.tenant, record.seq, record.prev, record.hash)
                for record in self.records.values()
                if record.seq > above.get(record.chain, 0)
            )
        turn = [link for link in found if link.chain > self._after]
        turn += [link for link in found if link.chain <= self._after]
        self._after = turn[most - 1].chain if len(turn) >= most else ""
        return sorted(turn[:most])

    def add(self, batch: StoreBatch) -> None:
        """See `Chains`."""
        with self._lock:
            if not all(map(self._follows, batch.chains.values())) or any(
                (tenant, number) in self._checkpoints for tenant, number, _ in batch.checkpoints
            ):
                raise Unavailable("another processor has gone further in this trail; begin anew")
            broken = {name: values[5] for name, values in self._chains.items() if values[5]} | dict(batch.broken)
            super().add(StoreBatch(chains=batch.chains, broken=broken, checkpoints=batch.checkpoints))
            self.bury([DeadLetter(*fault) for fault in batch.faults])

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """See `AuditReader`; without what follows a record that may be on its way here."""
        with self._lock:
            early = self._early()
        return (line for line in super().lines(tenant) if line not in early)

    def _early(self) -> set[bytes]:
        """Young records that do not follow the one before them, and those after them; of broken chains none."""
        patient = time.time_ns() // 1000 - _ON_ITS_WAY
        early: set[bytes] = set()
        waiting: set[str] = set()
        expected: dict[str, int] = {}
        for (chain, seq), record in sorted(self.records.items()):
            gap = seq != expected.get(chain, 1) and not self._chains[chain][5]
            if chain in waiting or (gap and record.time > patient):
                waiting.add(chain)
                early.add(record.line)
            expected[chain] = seq + 1
        return early

    def _follows(self, state: ChainState) -> bool:
        known = self._chains.get(state.chain)
        return known is None or (known[1] <= state.size and known[4] <= state.signed)


def _unknown(record: ArchivedRecord) -> tuple[str, int, str, bytes, int, str | None]:
    """What the leader will say of a chain, before it looked at it."""
    new = ChainState(record.chain, record.tenant)
    return (new.tenant, new.size, new.head, new.tree.pack(), new.signed, None)


def _row(record: ArchivedRecord) -> tuple[Any, ...]:
    tool = record.tool
    return (
        record.chain,
        record.seq,
        record.tenant,
        record.type,
        record.time,
        record.subject,
        record.leg,
        record.decision,
        record.agent,
        tool if tool is None or record.server is None else f"{record.server}__{tool}",
        record.effect or record.outcome,
        record.line,
    )
