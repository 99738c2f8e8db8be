"""The ledger's books: what a store loads, `core.admission` changes, and the store writes back.

The rows are mutable on purpose: a batch of operations works on one set of them. A row says whether it was changed.
"""

from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["Account", "AccountKey", "Arrival", "ArrivalKey", "Book", "Hold", "HoldKey", "State"]

HoldKey = tuple[str, int]
"""(call, leg)."""


AccountKey = tuple[str, str, str, str, int]
"""(owner, budget, bucket, amount, window's begin): one amount in one bucket of a budget, in one window."""

ArrivalKey = tuple[str, str, str]
"""(owner, budget, bucket): one bucket of a rate."""


class State(IntEnum):
    """Of a hold. An expired one was committed at its estimate and may still learn its actual cost, once."""

    OPEN = 0
    COMMITTED = 1
    RELEASED = 2
    EXPIRED = 3


@dataclass(slots=True)
class Account:
    """The balance under an `AccountKey`; `limit` and `thresholds` are the budget's when it was last used."""

    key: AccountKey
    ends: int
    limit: int
    thresholds: tuple[int, ...]
    committed: int = 0
    reserved: int = 0
    notified: int = 0
    """The highest threshold that was recorded, in percent."""
    warned: bool = False
    id: int = 0
    """The store's own; 0 = not stored yet."""
    changed: bool = False


@dataclass(slots=True)
class Arrival:
    """The theoretical arrival time (us) of a rate's bucket; `warned` while calls exceed it."""

    key: ArrivalKey
    at: int = 0
    warned: bool = False
    changed: bool = False


@dataclass(slots=True)
class Hold:
    """One reservation, with what it holds in each account (0 where the estimate was 0)."""

    call: str
    leg: int
    tenant: str
    writer: str
    expires: int
    lines: list[tuple[Account, int]]
    state: State = State.OPEN
    settled_at: int = 0
    stored: bool = False
    changed: bool = False


@dataclass(slots=True)
class Book:
    """A working set. A store must have put in every hold that the operations name, if it has it.

    Accounts and arrivals are asked for by key; a store that does not hold them all in memory overrides the two
    methods. `horizon` (ns): windows that ended by then, and rates that were idle since, may have been forgotten.
    """

    accounts: dict[AccountKey, Account] = field(default_factory=dict[AccountKey, Account])
    arrivals: dict[ArrivalKey, Arrival] = field(default_factory=dict[ArrivalKey, Arrival])
    holds: dict[HoldKey, Hold] = field(default_factory=dict[HoldKey, Hold])
    horizon: int = 0

    def account(self, key: AccountKey) -> Account | None:
        """The account, if there is one."""
        return self.accounts.get(key)

    def arrival(self, key: ArrivalKey) -> Arrival | None:
        """The arrival, if there is one."""
        return self.arrivals.get(key)
