"""What calls may spend, and what policies may ask about the past."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Books, Past
from fulcrum_mcp.core.budget import Budget, BudgetUsage, Match, Operation, Outcome, Remaining

__all__ = ["BudgetLedger", "History", "HistoryView", "SharedLedger", "WriterRegistry"]


class BudgetLedger(Protocol):
    """The ledger. Admitted reservations never exceed a hard limit, whoever else uses the store."""

    quick: bool
    """*Quick*, as the history beside it; else *synchronous*: both are then called on threads, several at once."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Apply in order, all in one transaction; each operation is atomic and idempotent per (call, leg).

        Raises `Unavailable`: then nothing was applied, or, if it says `doubtful`, nobody knows: send `Release` for
        each `Reserve`. A release of what was never held makes a later `Reserve` of it `repeated` and `settled`.
        """
        ...

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """Every bucket that was ever used, in the window that holds `at` (ns)."""
        ...

    def peek(self, matches: Sequence[Match], at: int) -> Sequence[Remaining]:
        """What is left in the buckets of one call, cheaply; advisory, only `apply` enforces."""
        ...

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """(call, leg) of the unsettled reservations of a writer, for replay after its death."""
        ...


class HistoryView(NamedTuple):
    """What policies may ask about the past: `history` in the policy input."""

    taints: tuple[str, ...] = ()
    calls: Mapping[str, int] = {}
    approvals: tuple[Mapping[str, Any], ...] = ()


class History(Protocol):
    """Taints and counters of an envelope (or of a key when there is none); as quick as its ledger."""

    def read(self, tenant: str, subject: str) -> HistoryView:
        """Everything about one subject (`envelope:ID` or `key:ID`) in one round trip. Raises `Unavailable`."""
        ...

    def count(self, tenant: str, subject: str, tool: str, at: int) -> None:
        """Count one admitted call of `<server>__<tool>`."""
        ...

    def taint(self, tenant: str, subject: str, labels: Sequence[str], at: int) -> None:
        """Add labels; durable when it returns. Idempotent."""
        ...


class SharedLedger(BudgetLedger, Protocol):
    """A ledger on a server that may lose it. It refuses everything unless its books belong to the server's run.

    Books of another installation are neither used nor replaced: all of it raises `Unavailable`, with the remedy.
    """

    def epoch(self) -> tuple[str, bool]:
        """The name of the books, another one after each loss and the same for all who ask; and whether they are made.

        Raises `Unavailable`.
        """
        ...

    def rebuild(self, epoch: str, book: Book, past: Past, at: int, *, beginning: bool = False) -> bool:
        """Take over what the store knows; False if the books were lost again, or have been made already.

        Rates start as if just emptied, unless it is the `beginning` and nothing was lost. Raises `Unavailable`.
        """
        ...


class WriterRegistry(Protocol):
    """Which writers live and how far the store has what they wrote, *synchronous*; what a rebuild needs."""

    def beat(self, writer: str, at: int, *, streamed: bool = False) -> bool:
        """This writer lives at `at` (ns); one that has not said so for a minute is dead. Raises `Unavailable`.

        `streamed`: it has no spool (see `Takeover`). False: it was taken over, and must not write any more.
        """
        ...

    def declare(
        self, writer: str, epoch: str, heads: Mapping[str, int], at: int, budgets: Sequence[Budget] = ()
    ) -> None:
        """From here on this writer reserves in `epoch` only; until now its chains went to `heads` (chain -> seq).

        `budgets`: those of its own, which nobody else may know.
        """
        ...

    def declared(self) -> Sequence[Budget]:
        """What any writer, dead or alive, ever declared; several of one id where files differ.

        Owner, id, limits, period, time zone and thresholds are as declared, nothing else is.
        """
        ...

    def retire(self, writer: str) -> None:
        """It has ended; all it wrote is on its way. Idempotent."""
        ...

    def missing(self, epoch: str, at: int) -> Sequence[str]:
        """Why the books of `epoch` cannot be made yet, one sentence each: writers not declared, heads not stored."""
        ...

    def books(self, budgets: Sequence[Budget], at: int) -> Books:
        """What was spent and is open in windows of `budgets` that have not ended at `at` (ns); each place once.

        Several of one id are several shapes of it. Raises `Unavailable`.
        """
        ...
