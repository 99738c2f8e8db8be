"""Takes records from the spools into the store, checks every chain, and signs checkpoints.

Runs under leadership only. A record that does not fit its chain is still stored and the chain marked as broken; what is
no record at all is kept with the fault. Nothing is ever dropped.
"""

import time
from collections.abc import Callable, Mapping

from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditStore, Signer, SpoolChunk, SpoolPosition, SpoolSource, StoreBatch
from fulcrum_mcp.processor.checkpoints import sign_checkpoints, unsigned_records
from fulcrum_mcp.processor.columns import read_record, row_of

__all__ = ["BREATH", "Intake"]

_ROWS = 512
"""Rows in one transaction, about."""
_SLICE = 32
"""Records between two breaths: other threads wait for the interpreter's lock meanwhile."""
BREATH = 0.0002
"""Seconds of a breath."""
_START = SpoolPosition(0, 0)


class Intake:
    """One leader's work. `step` until it returns None, then `sign` and `tidy` now and then."""

    def __init__(
        self,
        source: SpoolSource,
        store: AuditStore,
        signer: Signer,
        clock: Callable[[], int] = time.time_ns,
        breath: float = BREATH,
    ) -> None:
        """Raises `Unavailable`."""
        self._source = source
        self._store = store
        self._signer = signer
        self._clock = clock
        self._breath = breath
        self._state = store.load()
        self._released: dict[str, int] = {}
        self._seconds: dict[str, int] = {}
        self._touched: set[str] = set()
        self.blocked: dict[str, str] = {}
        """Writers whose spool cannot be read, and why."""
        self.unsigned = unsigned_records(self._state)
        """Records that no checkpoint covers yet."""

    def step(self) -> list[str] | None:
        """Take in about one transaction's worth: its faults, None when nothing is new.

        Raises `Unavailable`: then begin anew with a new Intake.
        """
        batch = StoreBatch(positions={})
        positions: dict[str, SpoolPosition] = {}
        refused: list[tuple[str, SpoolPosition, str]] = []
        self._touched.clear()
        for writer in self._source.writers():
            position = self._state.positions.get(writer, _START)
            while len(batch.rows) < _ROWS:
                try:
                    chunk = self._source.read(writer, position)
                except Unavailable as exc:  # the other writers go on
                    self.blocked[writer] = str(exc)
                    break
                self.blocked.pop(writer, None)
                if chunk is None:
                    break
                self._take(writer, chunk, batch)
                position = positions[writer] = chunk.position
                refused += [(writer, position, what) for _, what, _ in batch.faults[len(refused) :]]
        if not positions:
            return None
        batch.positions = positions
        for writer, position, what in refused:
            self._source.keep(writer, position, what)
        self._commit(batch)
        self._state.positions.update(positions)
        return [what for _, what, _ in batch.faults]

    def sign(self) -> int:
        """One checkpoint for every tenant with records that none covers; how many."""
        batch = sign_checkpoints(self._state, self._signer, self._clock())
        self.unsigned = 0
        if batch is None:
            return 0
        self._store.add(batch)
        return len(batch.checkpoints)

    def tidy(self, retention_us: int, *, all_writers: bool = False) -> None:
        """Remove what the store durably holds from the spools, and call inputs past their time."""
        behind = {
            writer: position
            for writer, position in self._state.positions.items()
            if all_writers or position.segment != self._released.get(writer)
        }
        if behind:
            self._store.flush()
            for writer, position in behind.items():
                self._source.release(writer, position)
                self._released[writer] = position.segment
        if all_writers:
            self._store.erase_inputs(self._clock() // 1000 - retention_us)

    def _commit(self, batch: StoreBatch) -> None:
        chains = self._state.chains
        batch.chains = {chain: chains[chain] for chain in self._touched}
        batch.broken = self._state.broken
        self._store.add(batch)

    def _take(self, writer: str, chunk: SpoolChunk, batch: StoreBatch) -> None:
        batch.faults += [(writer, fault, b"") for fault in chunk.faults]
        heads = chunk.heads
        now = self._clock() // 1000
        chains, broken, rows = self._state.chains, self._state.broken, batch.rows
        prefix = f"{writer}."
        for number, line in enumerate(chunk.lines):
            while heads and heads[0][0] == number:
                self._expect(writer, heads.pop(0)[1], batch)
            if number % _SLICE == _SLICE - 1 and self._breath:
                time.sleep(self._breath)
            record = read_record(line)
            if isinstance(record, str):
                batch.faults.append((writer, record, line))
                continue
            chain = record.chain
            if chain != prefix + record.tenant:
                batch.faults.append((writer, f"chain {chain} does not belong here", line))
                continue
            state = chains.get(chain)
            if state is None:
                state = chains[chain] = ChainState(chain, record.tenant)
            tree = state.tree
            if record.seq == tree.size + 1 and record.prev == state.head and chain not in broken:
                tree.add(bytes.fromhex(record.hash))
                state.head = record.hash
                self.unsigned += 1
            elif record.seq <= tree.size:
                batch.faults.append((writer, f"chain {chain} seq {record.seq} stands there already", line))
                continue
            else:
                self._break(writer, state, f"seq {state.size + 1} is missing or forked", batch)
            self._touched.add(chain)
            rows.append(row_of(record, line, self._seconds))
        for _, expected in heads:
            self._expect(writer, expected, batch)
        batch.inputs += [(name, now, text) for name, text in chunk.inputs]

    def _expect(self, writer: str, heads: Mapping[str, tuple[int, str]], batch: StoreBatch) -> None:
        """A writer's own word on where its chains stand: nothing before that may be missing."""
        for tenant, (seq, head) in heads.items():
            chain = f"{writer}.{tenant}"
            state = self._state.chains.get(chain)
            if state is None:
                state = self._state.chains[chain] = ChainState(chain, tenant)
            if state.size < seq or (state.size == seq and state.head != head):
                self._break(writer, state, f"seq {state.size + 1} is missing or forked", batch)
                self._touched.add(chain)

    def _break(self, writer: str, state: ChainState, why: str, batch: StoreBatch) -> None:
        if state.chain not in self._state.broken:
            self._state.broken[state.chain] = why
            batch.faults.append((writer, f"chain {state.chain} is broken: {why}", b""))

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def behind(self) -> bool:
        """Is anything acknowledged that the store does not have?"""
        state = self._store.load()
        return any(
            self._source.read(writer, state.positions.get(writer, _START)) is not None
            for writer in self._source.writers()
        )
