"""A ledger that can lose its books, and the registry of writers they are rebuilt from: in memory, for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Books, Past
from fulcrum_mcp.core.budget import Budget, Operation, Outcome
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import OpenCall, OpenPage, StoredPlace

__all__ = ["MemoryRegistry", "MemorySharedLedger"]

SECOND = 1_000_000_000
_DEAD_AFTER = 60 * SECOND


class MemorySharedLedger(MemoryLedger):
    """`SharedLedger`: `lose` begins another run of its server, with nothing in it; rates do not survive a rebuild."""

    quick = False

    def __init__(self) -> None:
        super().__init__()
        self._run = 1
        self._valid = False

    def lose(self) -> None:
        """Everything is gone."""
        self._run += 1
        self._valid = False
        self._book = Book()

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """See `BudgetLedger`."""
        if not self._valid:
            raise Unavailable("the ledger's books are being rebuilt; try again in a moment")
        return super().apply(operations)

    def epoch(self) -> tuple[str, bool]:
        """See `SharedLedger`."""
        return str(self._run), self._valid

    def rebuild(self, epoch: str, book: Book, past: Past, at: int, *, beginning: bool = False) -> bool:
        """See `SharedLedger`."""
        del past, at, beginning
        if self._valid or epoch != str(self._run):
            return False
        self._book, self._valid = book, True
        return True


@dataclass(slots=True)
class _Writer:
    seen: int
    streamed: bool = False
    retired: bool = False
    taken_by: str | None = None
    done: bool = False


class MemoryRegistry:
    """`WriterRegistry` and `Takeover`.

    A test says what is `stored` (chain -> seq), what the `known` books are, which calls are `left` open by a writer.
    """

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.known = Books(0)
        self.left: dict[str, list[tuple[StoredPlace, OpenCall]]] = {}
        self._writers: dict[str, _Writer] = {}
        self._declared: dict[str, tuple[str, Mapping[str, int]]] = {}
        self._budgets: list[Budget] = []

    def beat(self, writer: str, at: int, *, streamed: bool = False) -> bool:
        """See `WriterRegistry`."""
        known = self._writers.setdefault(writer, _Writer(at))
        if known.taken_by is not None:
            return False
        known.seen, known.streamed = at, streamed
        return True

    def declare(
        self, writer: str, epoch: str, heads: Mapping[str, int], at: int, budgets: Sequence[Budget] = ()
    ) -> None:
        """See `WriterRegistry`."""
        self._budgets += [budget for budget in budgets if budget.limits and budget not in self._budgets]
        known = self._writers.setdefault(writer, _Writer(at))
        if known.taken_by is None:
            known.seen, known.retired = at, False
            self._declared[writer] = (epoch, dict(heads))

    def declared(self) -> Sequence[Budget]:
        """See `WriterRegistry`."""
        return tuple(self._budgets)

    def retire(self, writer: str) -> None:
        """See `WriterRegistry`."""
        if writer in self._writers:
            self._writers[writer].retired = True

    def missing(self, epoch: str, at: int) -> Sequence[str]:
        """See `WriterRegistry`."""
        found: list[str] = []
        for writer, known in self._writers.items():
            declared, heads = self._declared.get(writer, ("", {}))
            if known.retired or known.taken_by is not None or at - known.seen > _DEAD_AFTER:
                continue
            if declared != epoch:
                found.append(f"writer {writer} has not said where its chains stand")
                continue
            behind = [chain for chain, seq in heads.items() if self.stored.get(chain, 0) < seq]
            found += [f"chain {chain} is not stored up to {heads[chain]}" for chain in behind]
        return found

    def books(self, budgets: Sequence[Budget], at: int) -> Books:
        """See `WriterRegistry`."""
        del budgets
        return self.known._replace(at=at)

    def claim(self, taker: str, at: int, oldest: float) -> str | None:
        """See `Takeover`."""
        me = self._writers.get(taker)
        if me is None or me.retired or me.taken_by is not None or at - me.seen > _DEAD_AFTER // 2:
            return None
        latest = at - _DEAD_AFTER - round(oldest * SECOND)
        for name, dead in self._writers.items():
            if not dead.streamed or dead.done or dead.seen >= latest:
                continue
            before = None if dead.taken_by is None else self._writers.get(dead.taken_by)
            if before is not None and not ((before.retired or before.taken_by is not None) and before.seen < latest):
                continue
            dead.taken_by = taker
            return name
        return None

    def unfinished(self, writer: str, after: StoredPlace | None) -> OpenPage:
        """See `Takeover`; two calls at a time."""
        found = [item for item in self.left.get(writer, ()) if after is None or item[0] > after][:2]
        return OpenPage(found, found[-1][0] if found else None)

    def done(self, taker: str, writer: str) -> None:
        """See `Takeover`."""
        known = self._writers.get(writer)
        if known is not None and known.taken_by == taker:
            known.done = True
