"""A ledger that can lose its books, and the registry of writers they are rebuilt from: in memory, for tests."""

from collections.abc import Mapping, Sequence

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Books, Past
from fulcrum_mcp.core.budget import Budget, Operation, Outcome
from fulcrum_mcp.errors import Unavailable

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


class MemoryRegistry:
    """`WriterRegistry`; a test says what is `stored` (chain -> seq) and what the `known` books are."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.known = Books(0)
        self._seen: dict[str, int] = {}
        self._declared: dict[str, tuple[str, Mapping[str, int]]] = {}

    def beat(self, writer: str, at: int) -> None:
        """See `WriterRegistry`."""
        self._seen[writer] = at

    def declare(self, writer: str, epoch: str, heads: Mapping[str, int], at: int) -> None:
        """See `WriterRegistry`."""
        self._seen[writer] = at
        self._declared[writer] = (epoch, dict(heads))

    def retire(self, writer: str) -> None:
        """See `WriterRegistry`."""
        self._seen.pop(writer, None)

    def missing(self, epoch: str, at: int) -> Sequence[str]:
        """See `WriterRegistry`."""
        found: list[str] = []
        for writer, seen in self._seen.items():
            declared, heads = self._declared.get(writer, ("", {}))
            if at - seen > _DEAD_AFTER:
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
