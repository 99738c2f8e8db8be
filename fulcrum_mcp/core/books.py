"""What the store knows about spending and about the past: enough to rebuild a ledger and a history that were lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fulcrum_mcp.core.account import Account, Book, Hold, State
from fulcrum_mcp.core.amount import amount_of
from fulcrum_mcp.core.budget import Amounts, Budget
from fulcrum_mcp.core.window import window_at

__all__ = ["Books", "Past", "Place", "Spent", "Unsettled", "book_of"]


class Place(NamedTuple):
    """One bucket of a budget in one window, as a `decided` record names it."""

    owner: str
    budget: str
    bucket: str
    starts: int
    """Begin of the window, ns; 0 = it never ends."""


class Spent(NamedTuple):
    """What all settled calls cost in one place."""

    place: Place
    amounts: Amounts


class Unsettled(NamedTuple):
    """A call that was admitted and whose cost nobody has recorded yet: it counts at its estimate."""

    call: str
    leg: int
    tenant: str
    writer: str
    amounts: Amounts
    places: tuple[Place, ...]


class Past(NamedTuple):
    """What policies may ask about the past; times in ns."""

    taints: tuple[tuple[str, str, str, int], ...] = ()
    """(tenant, subject, label, last time)."""
    calls: tuple[tuple[str, str, str, int, int], ...] = ()
    """(tenant, subject, tool, count, time of the slice or of the last call)."""


class Books(NamedTuple):
    """Everything about windows that had not ended at `at` (ns)."""

    at: int
    spent: tuple[Spent, ...] = ()
    unsettled: tuple[Unsettled, ...] = ()
    past: Past = Past()
    beginning: bool = False
    """Nothing was ever recorded: nothing can have been lost."""


def book_of(books: Books, budgets: Iterable[Budget]) -> Book:
    """The ledger's book: settled and unsettled calls as committed, the latter with a hold that may still learn better.

    What fits no budget, and windows that have ended, are left out. Of one id there may be several shapes, as gateways
    with different files have them: each counts, and the first one says the limit.
    """
    known: dict[tuple[str, str], list[Budget]] = {}
    for budget in budgets:
        known.setdefault((budget.tenant, budget.id), []).append(budget)
    book = Book()
    for place, amounts in books.spent:
        for account in _accounts(book, known, place, books.at):
            account.committed += amount_of(amounts, account.key[3])
    for call in books.unsettled:
        lines: list[tuple[Account, int]] = []
        for place in call.places:
            for account in _accounts(book, known, place, books.at):
                estimate = amount_of(call.amounts, account.key[3])
                account.committed += estimate
                lines.append((account, estimate))
        hold = Hold(call.call, call.leg, call.tenant, call.writer, 0, lines, State.EXPIRED, books.at)
        book.holds[call.call, call.leg] = hold
    for account in book.accounts.values():
        account.notified = max(
            (p for p in account.thresholds if account.committed * 100 >= account.limit * p), default=0
        )
    return book


def _accounts(book: Book, known: Mapping[tuple[str, str], Sequence[Budget]], place: Place, at: int) -> list[Account]:
    """The accounts of a place, one for each amount that its budget limits; windows that begin together end last."""
    found: dict[str, Account] = {}
    for budget in known.get((place.owner, place.budget), ()):
        window = window_at(budget.period, budget.timezone, place.starts)
        if window.start != place.starts or (window.end and window.end <= at):
            continue
        for name, limit in budget.limits.items():
            key = (place.owner, place.budget, place.bucket, name, window.start)
            account = book.accounts.get(key)
            if account is None:
                account = book.accounts[key] = Account(key, window.end, limit, budget.thresholds, changed=True)
            account.ends = max(account.ends, window.end) if account.ends and window.end else 0
            found[name] = account
    return list(found.values())
