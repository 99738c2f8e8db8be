"""Proves that spool, stream and store hold the same trail, chain by chain; says what differs, and where it still is.

Witnesses are asked first and the store last, so that what was recorded meanwhile is no difference: the spools of this
machine, the stream (what no processor has stored), and claims: a writer's own word on where its chains stand, and what
the leader has checked before. Then every record of the store is read: its hash, its link, its place.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fulcrum_mcp.core.audit import GENESIS, RecordHead, parse_record
from fulcrum_mcp.core.checkpoint import CHECKPOINT
from fulcrum_mcp.ports import Chains, Link, Seen, SpoolPosition, SpoolSource, StoreState
from fulcrum_mcp.processor.parcels import unpack
from fulcrum_mcp.processor.witness import Witness, ranges

__all__ = ["Difference", "Found", "Reconciliation", "read_spools", "repair"]

What = Literal["missing", "other", "changed", "unlinked", "broken", "unreadable"]

_CHECKPOINT = b'{"type":"%b"' % CHECKPOINT.encode("ascii")
_START = SpoolPosition(0, 0)
_AT_ONCE = 256
_LINKS = 4096
_TRIES = 3
_NOWHERE = "nowhere: not in the store, the stream or a spool of this machine; look on the other gateways' machines"


class Difference(NamedTuple):
    """Something that is not as it should be, from `first` to `last`; 0: no seq of a chain."""

    chain: str
    first: int
    last: int
    what: What
    where: str
    """For people: what is where."""
    repairable: bool = False
    """It is in a spool of this machine."""


@dataclass(slots=True)
class Found:
    """How far the store has a chain."""

    size: int = 0
    """Highest contiguous seq."""
    last: int = 0
    """Highest seq."""
    head: str = GENESIS
    """Hash of the last."""
    gaps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


@dataclass(slots=True)
class Reconciliation:
    """Feed it the witnesses, then the store; then ask for `differences`."""

    spool: Witness = field(default_factory=Witness)
    stream: Witness = field(default_factory=Witness)
    claims: Witness = field(default_factory=Witness)
    store: dict[str, Found] = field(default_factory=dict[str, Found])
    records: int = 0
    """In the store."""
    notes: list[Difference] = field(default_factory=list[Difference])
    """What does not follow from comparing."""

    def take_spool_line(self, line: bytes) -> None:
        """A record of a spool."""
        head = parse_record(line)
        if head is None or not head.whole:
            self._unreadable("a record in the spool is damaged")
        else:
            self._witness(self.spool, head.chain, head.seq, head.hash, "the spool has")

    def take_spool_head(self, chain: str, seq: int, digest: str) -> None:
        """A writer's own word on where its chain stands; the record itself may have left the spool."""
        if seq:
            self._witness(self.claims, chain, seq, digest, "of its writer and the checks, each claims")

    def take_parcel(self, seen: Seen, tenant: str | None) -> None:
        """A message of the stream; what nobody of ours has sent is no witness."""
        subject, body, fault = seen
        if fault is not None:
            self._unreadable(f"in the stream under {subject}: {fault}")
            return
        entries, letters = unpack(subject, tenant, body, 0)
        for entry in entries:
            self._witness(self.stream, entry.record.chain, entry.record.seq, entry.record.hash, "the stream has")
        for letter in letters:
            self._unreadable(f"in the stream under {subject}: {letter.what}")

    def take_state(self, state: StoreState) -> None:
        """What the leader has checked, as it was before the store is read."""
        for chain in state.chains.values():
            self.take_spool_head(chain.chain, chain.size, chain.head)
        self.notes += [Difference(name, 0, 0, "broken", why) for name, why in state.broken.items()]

    def take_store(self, lines: Iterable[bytes]) -> None:
        """Every record and checkpoint of the store, in an export's order."""
        for line in lines:
            if line.startswith(_CHECKPOINT):
                continue
            head = parse_record(line)
            if head is None:
                self._unreadable("a line in the store is no record")
            else:
                if not head.whole:
                    self._note(head, "changed", "its bytes in the store are not those that were written")
                self._take_stored(head)

    def take_links(self, chains: Chains) -> None:
        """What an export leaves out: records behind one that may be on its way. Raises `Unavailable`."""
        while links := chains.links({name: found.last for name, found in self.store.items()}, _LINKS):
            for link in links:
                self._take_stored(link)

    def _take_stored(self, head: RecordHead | Link) -> None:
        self.records += 1
        found = self.store.setdefault(head.chain, Found())
        for witness, name in ((self.spool, "spool"), (self.stream, "stream"), (self.claims, "writer or the checks")):
            if witness.take(head.chain, head.seq, head.hash) is False:
                self._note(head, "other", f"the store has another record there than the {name}")
        if head.seq <= found.last:
            self._note(head, "unlinked", "it stands in the store twice, or out of order")
            return
        if head.seq > found.last + 1:
            found.gaps.append((found.last + 1, head.seq - 1))
        elif head.prev != found.head:
            self._note(head, "unlinked", "in the store it does not continue the record before it")
        if not found.gaps:
            found.size = head.seq
        found.last, found.head = head.seq, head.hash

    def _note(self, head: RecordHead | Link, what: What, where: str) -> None:
        self.notes.append(Difference(head.chain, head.seq, head.seq, what, where))

    def _unreadable(self, where: str) -> None:
        self.notes.append(Difference("", 0, 0, "unreadable", where))

    def _witness(self, witness: Witness, chain: str, seq: int, digest: str, who: str) -> None:
        if not witness.put(chain, seq, digest):
            self.notes.append(Difference(chain, seq, seq, "other", f"{who} two records there"))

    def differences(self) -> list[Difference]:
        """All of them, by chain and seq; none: spool, stream and store hold the same."""
        found = set(self.notes)
        witnesses = (self.spool, self.stream, self.claims)
        for chain in {*self.store, *(name for witness in witnesses for name in witness.chains())}:
            found.update(self._missing(chain))
        return sorted(found)

    def _missing(self, chain: str) -> Iterator[Difference]:
        spool, stream = set(self.spool.left(chain)), set(self.stream.left(chain))
        for seqs, where, repairable in (
            (spool & stream, "in the spool and in the stream, not in the store", True),
            (spool - stream, "in the spool, not in the store", True),
            (stream - spool, "in the stream, not in the store", False),
        ):
            for first, last in ranges(sorted(seqs)):
                yield Difference(chain, first, last, "missing", where, repairable)
        there = self.store.get(chain, Found())
        known = sorted(spool | stream)
        top = max([*known[-1:], *self.claims.left(chain)], default=0)
        for first, last in [*there.gaps, (there.last + 1, top)]:
            for span in _without(first, last, known):
                yield Difference(chain, *span, "missing", _NOWHERE)

    def wanted(self) -> Mapping[str, frozenset[int]]:
        """What a spool of this machine has and the store has not."""
        found = {chain: frozenset(self.spool.left(chain)) for chain in self.spool.chains()}
        return {chain: seqs for chain, seqs in found.items() if seqs}


def _without(first: int, last: int, known: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The parts of a span that hold nothing of `known` (ascending)."""
    for seq in known[bisect_left(known, first) : bisect_right(known, last)]:
        if seq > first:
            yield first, seq - 1
        first = seq + 1
    if first <= last:
        yield first, last


def read_spools(source: SpoolSource, into: Reconciliation) -> None:
    """Everything that is on this machine's disk. Raises `Unavailable`."""
    for writer in source.writers():
        faults: Sequence[str] = ()
        for _ in range(_TRIES):  # what is confirmed meanwhile is removed under our hands: then once more
            faults = _read_spool(source, writer, into)
            if not faults:
                break
        into.notes += [Difference("", 0, 0, "unreadable", fault) for fault in faults]


def _read_spool(source: SpoolSource, writer: str, into: Reconciliation) -> Sequence[str]:
    position = _START
    faults: list[str] = []
    while (chunk := source.read(writer, position)) is not None:
        for line in chunk.lines:
            into.take_spool_line(line)
        for _, heads in chunk.heads:
            for tenant, (seq, digest) in heads.items():
                into.take_spool_head(f"{writer}.{tenant}", seq, digest)
        faults += chunk.faults
        position = chunk.position
    return faults


Put = Callable[[Sequence[bytes], Sequence[tuple[str, bytes]]], None]
"""Store these lines and these (record id, inputs). Raises `Unavailable`."""


def repair(source: SpoolSource, wanted: Mapping[str, frozenset[int]], put: Put) -> int:
    """Store what the spools have of `wanted`, byte for byte; how many records. Raises `Unavailable`."""
    stored = 0
    for writer in source.writers():
        position = _START
        held: list[tuple[bytes, str]] = []
        while (chunk := source.read(writer, position)) is not None:
            position = chunk.position
            inputs = dict(chunk.inputs)
            found = held
            for line in chunk.lines:
                head = parse_record(line)
                if head is not None and head.whole and head.seq in wanted.get(head.chain, ()):
                    found.append((line, head.id))
            held = found[-1:] if found and found[-1][1] not in inputs else []  # its inputs may come with the next piece
            stored += _put(found[: len(found) - len(held)], inputs, put)
        stored += _put(held, {}, put)
    return stored


def _put(found: Sequence[tuple[bytes, str]], inputs: Mapping[str, bytes], put: Put) -> int:
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        put([line for line, _ in some], [(name, inputs[name]) for _, name in some if name in inputs])
    return len(found)
