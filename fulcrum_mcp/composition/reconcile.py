"""`fulcrum audit reconcile` put together, for a data folder and for an installation with several gateways."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fulcrum_adapters.spool import FileLeadership, SpoolReader
from fulcrum_adapters.sqlite.audit_store import SqliteAuditStore
from fulcrum_mcp.composition.audit import open_processor, open_reader
from fulcrum_mcp.core.checkpoint import CHECKPOINT
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditReader, AuditStore, SpoolSource, StoreBatch
from fulcrum_mcp.processor.columns import Record, read_record, row_of
from fulcrum_mcp.processor.reconcile import Difference, Put, Reconciliation, read_spools, repair
from fulcrum_mcp.settings import Settings

__all__ = ["Reconciled", "Told", "counted", "reconcile"]

Told = Callable[[str], None]
"""Is told, in a few words, what is being done."""

_PAUSE = 1.0
_EVERY = 1000
_CHECKPOINT = b'{"type":"%b"' % CHECKPOINT.encode("ascii")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found, after the repair if there was one."""

    found: Reconciliation
    differences: Sequence[Difference]
    repaired: int
    streamed: bool
    """There is a stream, and it was asked."""
    spooled: bool
    """There is a spool on this machine to compare with."""


class _Parts(Protocol):
    """Where the trail lies."""

    source: SpoolSource
    streamed: bool

    def look(self) -> Reconciliation:
        """Ask everybody once. Raises `Unavailable`."""
        ...

    def mending(self) -> AbstractContextManager[Put]:
        """What stores records that are missing. Raises `Unavailable`."""
        ...


def reconcile(settings: Settings, told: Told, *, mend: bool, patience: float) -> Reconciled:
    """Compare, wait `patience` seconds for what is under way, repair if asked to. Raises `Unavailable`, `Invalid`."""
    if settings.postgres is None:
        with _embedded(settings.data, told) as parts:
            return _reconcile(parts, told, mend=mend, patience=patience)
    from fulcrum_mcp.composition.reconcile_installation import installation  # noqa: PLC0415 - for the full mode only

    with installation(settings, told) as parts:
        return _reconcile(parts, told, mend=mend, patience=patience)


def _reconcile(parts: _Parts, told: Told, *, mend: bool, patience: float) -> Reconciled:
    spooled = bool(parts.source.writers())
    found, differences = _settled(parts.look, told, patience)
    repaired = 0
    if mend and (wanted := found.wanted()):
        told("storing what the spools have")
        with parts.mending() as put:
            repaired = repair(parts.source, wanted, put)
        found, differences = _settled(parts.look, told, patience)
    return Reconciled(found, differences, repaired, parts.streamed, spooled)


def counted(lines: Iterable[bytes], told: Told) -> Iterator[bytes]:
    """Lines of the store, which may be many."""
    for number, line in enumerate(lines):
        if number % _EVERY == 0:
            told(f"reading the store: {number:,}")
        yield line


def _settled(
    look: Callable[[], Reconciliation], told: Told, patience: float
) -> tuple[Reconciliation, list[Difference]]:
    """What is missing may be under way: look again until it has arrived, or long enough."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        differences = found.differences()
        if not any(each.what == "missing" for each in differences) or time.monotonic() >= deadline:
            return found, differences
        told(f"{len(differences)} differences; looking again, for what may be under way")
        time.sleep(min(_PAUSE, max(deadline - time.monotonic(), 0.0)))


class _DataFolder:
    """Spools and `audit.db` of one machine."""

    streamed = False

    def __init__(self, data: Path, told: Told) -> None:
        self._data = data
        self._told = told
        self.source: SpoolSource = SpoolReader(data / "spool", data / "aside")

    def look(self) -> Reconciliation:
        """See `_Parts`."""
        self._told("reading the spools")
        processor = open_processor(self._data, breath=0.0)
        try:
            processor.drain(1.0)
        finally:
            processor.stop()
        found = Reconciliation()
        read_spools(self.source, found)
        store, reader = SqliteAuditStore(self._data / "audit.db"), open_reader(self._data)
        try:
            found.take_state(store.load())
            found.take_store(counted(reader.lines(None), self._told))
        finally:
            reader.close()
            store.close()
        return found

    @contextmanager
    def mending(self) -> Iterator[Put]:
        """See `_Parts`; whoever leads has its own view of the chains, so nobody may."""
        leadership = FileLeadership(self._data / "processor.lock")
        if not leadership.acquire():
            raise Unavailable(f"{self._data}: a running Fulcrum writes this store; stop it, then repair")
        try:
            store = SqliteAuditStore(self._data / "audit.db")
            reader = open_reader(self._data)
            try:
                yield lambda lines, inputs: _put(store, lines, inputs)
                mend_chains(store, reader)
                store.flush()
            finally:
                reader.close()
                store.close()
        finally:
            leadership.release()


def _put(store: AuditStore, lines: Sequence[bytes], inputs: Sequence[tuple[str, bytes]]) -> None:
    records = [(read_record(line), line) for line in lines]
    seconds: dict[str, int] = {}
    rows = [row_of(record, line, seconds) for record, line in records if isinstance(record, Record)]
    now = time.time_ns() // 1000
    store.add(StoreBatch(rows=rows, inputs=[(name, now, text) for name, text in inputs]))


def mend_chains(store: AuditStore, reader: AuditReader) -> None:
    """Go on with broken chains whose missing records are there now; they are whole again if that leads to their end."""
    state = store.load()
    left = dict.fromkeys(state.broken, 0)
    for line in reader.lines(None):
        record = None if line.startswith(_CHECKPOINT) else read_record(line)
        if not isinstance(record, Record) or record.chain not in left:
            continue
        chain = state.chains[record.chain]
        if record.seq == chain.size + 1 and record.prev == chain.head:
            chain.add(record.hash)
        elif record.seq > chain.size:
            left[record.chain] += 1
    broken = {name: why for name, why in state.broken.items() if left[name]}
    store.add(StoreBatch(chains={name: state.chains[name] for name in left}, broken=broken))


@contextmanager
def _embedded(data: Path, told: Told) -> Iterator[_Parts]:
    if not (data / "spool").is_dir() and not (data / "audit.db").exists():
        raise Unavailable(f"{data}: nothing is recorded here; name another folder with --data")
    yield _DataFolder(data, told)
