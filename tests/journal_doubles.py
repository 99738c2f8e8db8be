"""A log and a ledger that fail, wait and count as a test tells them to."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_mcp.core.audit import RecordDraft, RecordRef
from fulcrum_mcp.core.budget import Operation, Outcome
from fulcrum_mcp.errors import Unavailable

__all__ = ["DistantGatedLog", "FarLedger", "GatedLog", "MoodyLedger"]

_PATIENCE = 10.0


class GatedLog(MemoryAuditLog):
    """`gate` closed: `append` waits before it writes. `broken`: it fails. `sizes`: drafts of each append."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.broken: str | None = None
        self.sizes: list[int] = []

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        self.reached.set()
        if not self.gate.wait(_PATIENCE):
            raise Unavailable("log: the test never opened the gate")
        if self.broken is not None:
            raise Unavailable(self.broken)
        self.sizes.append(len(drafts))
        return super().append(drafts)


class DistantGatedLog(GatedLog):
    """Its durable step is taken on a thread of its own. `threads`: on which ones it was."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def write(self, block: Any) -> None:
        self.threads.add(threading.current_thread().name)
        super().write(block)

    def begin(self, block: Any, told: Callable[[Exception | None], None]) -> None:
        threading.Thread(target=self._write, args=(block, told), name="elsewhere", daemon=True).start()

    def _write(self, block: Any, told: Callable[[Exception | None], None]) -> None:
        try:
            self.write(block)
        except Unavailable as fault:
            told(fault)
        else:
            told(None)


class MoodyLedger(MemoryLedger):
    """`broken`: it fails with this. `applied`: what each successful call was given."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: Exception | None = None
        self.applied: list[list[Operation]] = []

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        if self.broken is not None:
            raise self.broken
        self.applied.append(list(operations))
        return super().apply(operations)


class FarLedger(MoodyLedger):
    """Across the network. `gate` closed: it hangs; `asked` is set once it was asked for something then."""

    quick = False

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        if not self.gate.is_set():
            self.asked.set()
            if not self.gate.wait(_PATIENCE):
                raise Unavailable("ledger: the test never opened the gate")
        return super().apply(operations)
