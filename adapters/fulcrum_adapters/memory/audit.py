"""The audit ports in memory: for tests and dry runs. Nothing outlives the process."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence

from fulcrum_mcp.core.audit import ChainWriter, RecordDraft, RecordRef
from fulcrum_mcp.core.checkpoint import ChainState, line_hash
from fulcrum_mcp.core.merkle import Frontier
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import (
    AuditQuery,
    DecisionRecord,
    SpoolChunk,
    SpoolPosition,
    StoreBatch,
    StoredRecord,
    StoreState,
)

__all__ = ["MemoryAuditLog", "MemoryAuditStore", "MemoryLeadership"]

_Row = tuple[str, int, str, str, int, str, int | None, str | None, str | None, str | None, str | None, bytes]


class MemoryAuditLog:
    """An `AuditLog` and the `SpoolSource` over it."""

    def __init__(self, writer: str = "memory") -> None:
        self.writer = writer
        self.lines: list[bytes] = []
        self.inputs: list[tuple[str, bytes]] = []
        self.kept: list[str] = []
        self._chains: dict[str, ChainWriter] = {}
        self._closed = False

    def heads(self) -> Mapping[str, int]:
        """See `AuditLog`."""
        return {chain.chain: chain.seq for chain in self._chains.values()}

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        """See `AuditLog`."""
        if self._closed:
            raise Unavailable("the audit log is closed; nothing is forwarded without its record")
        refs: list[RecordRef] = []
        for draft in drafts:
            chain = self._chains.setdefault(draft.tenant, ChainWriter(self.writer, draft.tenant))
            line, ref = chain.add(draft)
            self.lines.append(line)
            if draft.inputs is not None:
                self.inputs.append((draft.id, draft.inputs))
            refs.append(ref)
        return refs

    def prepare(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordDraft]:
        """See `AuditLog`."""
        return list(drafts)

    def write(self, block: Sequence[RecordDraft]) -> None:
        """See `AuditLog`."""
        self.append(block)

    def conclude(self, block: Sequence[RecordDraft], *, written: bool) -> None:
        """See `AuditLog`."""

    def close(self) -> None:
        """See `AuditLog`."""
        self._closed = True

    def writers(self) -> Sequence[str]:
        """See `SpoolSource`."""
        return [self.writer]

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        """See `SpoolSource`; a position's offset counts records and inputs."""
        taken, inputs = position
        if writer != self.writer or (taken, inputs) >= (len(self.lines), len(self.inputs)):
            return None
        end = SpoolPosition(len(self.lines), len(self.inputs))
        return SpoolChunk(self.lines[taken:], self.inputs[inputs:], [], end, [])

    def release(self, writer: str, position: SpoolPosition) -> None:
        """See `SpoolSource`."""

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        """See `SpoolSource`."""
        self.kept.append(f"{writer} {position.segment}: {why}")


class MemoryAuditStore:
    """An `AuditStore` and the `AuditReader` over it."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._places: dict[tuple[str, int], int] = {}
        self._inputs: dict[str, tuple[int, bytes]] = {}
        self._chains: dict[str, tuple[str, int, str, bytes, int, str | None]] = {}
        self._positions: dict[str, SpoolPosition] = {}
        self._checkpoints: dict[tuple[str, int], bytes] = {}
        self._faults: list[tuple[str, str, bytes]] = []

    def load(self) -> StoreState:
        """See `AuditStore`."""
        chains = {
            name: ChainState(name, tenant, head, Frontier(size, nodes), signed)
            for name, (tenant, size, head, nodes, signed, _) in self._chains.items()
        }
        broken = {name: values[5] for name, values in self._chains.items() if values[5]}
        last = {tenant: (number, line_hash(line)) for (tenant, number), line in sorted(self._checkpoints.items())}
        return StoreState(chains, broken, dict(self._positions), last)

    def add(self, batch: StoreBatch) -> None:
        """See `AuditStore`."""
        for row in batch.rows:
            self._rows.pop(self._places.get((row[0], row[1]), 0), None)
            number = max(self._rows, default=0) + 1
            self._places[row[0], row[1]] = number
            self._rows[number] = row
        self._inputs.update((name, (time, text)) for name, time, text in batch.inputs)
        for s in batch.chains.values():
            broken = batch.broken.get(s.chain)
            self._chains[s.chain] = (s.tenant, s.size, s.head, s.tree.pack(), s.signed, broken)
        self._positions.update(batch.positions)
        self._checkpoints.update(((tenant, number), line) for tenant, number, line in batch.checkpoints)
        self._faults += batch.faults

    def flush(self) -> None:
        """See `AuditStore`."""

    def erase_inputs(self, before: int) -> int:
        """See `AuditStore`."""
        old = [name for name, (time, _) in self._inputs.items() if time < before]
        for name in old:
            del self._inputs[name]
        return len(old)

    def close(self) -> None:
        """See `AuditStore`."""

    def query(self, query: AuditQuery) -> Sequence[StoredRecord]:
        """See `AuditReader`."""
        order = sorted(self._rows, reverse=query.after is None)
        found = [
            StoredRecord(number, self._rows[number][-1]) for number in order if _fits(query, number, self._rows[number])
        ]
        return found[: query.limit]

    def decision(self, tenant: str | None, decision_id: str) -> DecisionRecord | None:
        """See `AuditReader`."""
        decided: _Row | None = None
        for row in self._rows.values():
            if row[7] == decision_id and row[3].endswith(".decided") and tenant in {None, row[2]}:
                decided = row
        if decided is None:
            return None
        rows = self._rows.values()
        same = [row for row in rows if row[5:7] == decided[5:7] and row[2] == decided[2]]
        inputs = self._inputs.get(json.loads(decided[-1])["id"])
        finished = [row[-1] for row in same if row[3].endswith(".finished")]
        return DecisionRecord(decided[-1], inputs[1] if inputs else None, finished)

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """See `AuditReader`."""
        tenants = {row[2] for row in self._rows.values()} | {name for name, _ in self._checkpoints}
        for each in sorted(tenants):
            if tenant in {None, each}:
                yield from self._section(each)

    def _section(self, tenant: str) -> Iterator[bytes]:
        places = sorted(place for place, number in self._places.items() if self._rows[number][2] == tenant)
        done: dict[str, int] = {}
        for (name, _), line in sorted(self._checkpoints.items()):
            if name == tenant:
                for claim in json.loads(line)["chains"]:
                    chain, size = claim["chain"], claim["size"]
                    yield from (self._line(p) for p in places if p[0] == chain and done.get(chain, 0) < p[1] <= size)
                    done[chain] = size
                yield line
        yield from (self._line(place) for place in places if place[1] > done.get(place[0], 0))

    def _line(self, place: tuple[str, int]) -> bytes:
        return self._rows[self._places[place]][-1]

    def counts(self, tenant: str | None) -> Mapping[str, int]:
        """See `AuditReader`."""
        chains = [values for values in self._chains.values() if tenant in {None, values[0]}]
        return {
            "records": sum(values[1] for values in chains),
            "chains": len(chains),
            "checkpoints": sum(1 for name, _ in self._checkpoints if tenant in {None, name}),
            "inputs": len(self._inputs),
            "faults": len(self._faults),
            "last": max(self._rows, default=0),
        }


def _fits(query: AuditQuery, number: int, row: _Row) -> bool:
    _, _, tenant, kind, time, call, _, decision, agent, tool, effect, _ = row
    wanted = ((query.tenant, tenant), (query.effect, effect), (query.agent, agent), (query.type, kind))
    return (
        all(want in {None, have} for want, have in (*wanted, (query.call, call), (query.decision, decision)))
        and (query.tool is None or fnmatch.fnmatchcase(tool or "", query.tool.replace("[", "[[]")))
        and (query.since is None or time >= query.since // 1000)
        and (query.until is None or time < query.until // 1000)
        and (query.after is None or number > query.after)
        and (query.before is None or number < query.before)
    )


class MemoryLeadership:
    """A `Leadership` without rivals."""

    def acquire(self) -> bool:
        """See `Leadership`."""
        return True

    def release(self) -> None:
        """See `Leadership`."""
