"""The store of an installation as a ledger is rebuilt from it, read from the spools themselves, a little late."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fulcrum_adapters.memory.shared import MemoryRegistry
from fulcrum_adapters.spool import SpoolReader
from fulcrum_mcp.core.books import Books, Past, Spent, Unsettled
from fulcrum_mcp.core.budget import Amounts, Budget
from fulcrum_mcp.ports import ArchivedRecord, Spend, SpoolPosition
from fulcrum_mcp.processor.archived import archived

__all__ = ["SpoolStore"]

LAG: Final = 0.15
"""Seconds from a record's being seen in a spool until it is stored."""
_MICRO = 1_000


class SpoolStore(MemoryRegistry):
    """`WriterRegistry` over every spool of a folder. From any thread."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self._source = SpoolReader(data / "spool", data / "aside")
        self._positions: dict[str, SpoolPosition] = {}
        self._seen: list[tuple[float, ArchivedRecord]] = []
        self._lock = threading.Lock()

    def written(self) -> list[ArchivedRecord]:
        """Every record that is durable now."""
        with self._lock:
            for writer in self._source.writers():
                self._read(writer)
            return [record for _, record in self._seen]

    def _read(self, writer: str) -> None:
        position = self._positions.get(writer, SpoolPosition(0, 0))
        while (chunk := self._source.read(writer, position)) is not None:
            assert chunk.faults == [], chunk.faults
            position = self._positions[writer] = chunk.position
            for line in chunk.lines:
                record = archived(line)
                assert isinstance(record, ArchivedRecord), record
                self._seen.append((time.monotonic(), record))

    def _stored(self) -> list[ArchivedRecord]:
        self.written()
        late = time.monotonic() - LAG
        with self._lock:
            return [record for seen_at, record in self._seen if seen_at <= late]

    @property
    def complete(self) -> bool:
        """Everything that was written is stored."""
        return len(self._stored()) == len(self.written())

    def missing(self, epoch: str, at: int) -> Sequence[str]:
        """See `WriterRegistry`."""
        self.stored = dict(Counter(record.chain for record in self._stored()))
        return super().missing(epoch, at)

    def books(self, budgets: Sequence[Budget], at: int) -> Books:
        """See `WriterRegistry`."""
        del budgets
        records = self._stored()
        ends = dict(_ends(records))
        spent: list[Spent] = []
        unsettled: list[Unsettled] = []
        for record, spend in _spends(records):
            if spend.reserved is None:
                continue
            charged = ends.get(record.subject)
            if charged is not None:
                spent += [Spent(place, charged) for place in spend.places]
            else:
                call = (record.subject, record.leg or 0, record.tenant, record.chain.partition(".")[0])
                unsettled.append(Unsettled(*call, spend.reserved, spend.places))
        return Books(at, tuple(spent), tuple(unsettled), _past(records), beginning=not records)


def _spends(records: Sequence[ArchivedRecord]) -> Iterator[tuple[ArchivedRecord, Spend]]:
    return ((record, record.spend) for record in records if record.spend is not None)


def _ends(records: Sequence[ArchivedRecord]) -> Iterator[tuple[str, Amounts]]:
    """What calls cost, where their ends say it."""
    for record, spend in _spends(records):
        if record.outcome is not None and spend.charged is not None:
            yield record.subject, spend.charged


def _past(records: Sequence[ArchivedRecord]) -> Past:
    subjects: dict[str, str] = {}
    taints: dict[tuple[str, str, str], int] = {}
    counts: dict[tuple[str, str, str], tuple[int, int]] = {}
    for record, spend in _spends(records):
        if record.effect == "allow" and spend.subject is not None:
            subjects[record.subject] = spend.subject
            key = (record.tenant, spend.subject, f"{record.server}__{record.tool}")
            counts[key] = (counts.get(key, (0, 0))[0] + 1, record.time * _MICRO)
        subject = subjects.get(record.subject)
        if subject is not None and record.effect in (None, "allow"):
            taints |= {(record.tenant, subject, label): record.time * _MICRO for label in spend.taints}
    return Past(
        tuple((*key, at) for key, at in taints.items()), tuple((*key, *figures) for key, figures in counts.items())
    )
