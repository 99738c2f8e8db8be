"""Budgets, rates and reservations: integers only, all matching budgets taken together or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = [
    "Action",
    "Amounts",
    "Budget",
    "BudgetUsage",
    "Commit",
    "Expire",
    "LedgerEvent",
    "Match",
    "Operation",
    "Outcome",
    "Rate",
    "Refused",
    "Release",
    "Remaining",
    "Renew",
    "Reserve",
    "Reserved",
    "Scope",
    "ScopeKind",
    "Settled",
]

ScopeKind = Literal["global", "tenant", "agent", "key", "workflow", "envelope", "server", "tool", "model"]
Action = Literal["warn", "soft", "hard"]


class Amounts(NamedTuple):
    """What a call costs. All integers; `usd_micros` are millionths of a US dollar, `seconds` whole seconds."""

    calls: int = 1
    usd_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    bytes: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a budget covers. Without `id` every value of the kind has a bucket of its own; `global` has one bucket."""

    kind: ScopeKind
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` calls each `period` seconds, `burst` at once (GCRA)."""

    limit: int
    period: int
    burst: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on amounts within a period, or a rate, or both.

    `limits` maps an amount's name (those of `Amounts`, or `tokens` for input + output) to its maximum; `period` is
    minute, hour, day, week, month, quarter, year, infinite or a number of seconds as digits; windows begin in
    `timezone` (IANA). `thresholds` are percentages at which an event is recorded once a window. `tenant` owns it.
    """

    id: str
    tenant: str
    name: str
    scope: Scope
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    period: str = "day"
    action: Action = "hard"
    thresholds: tuple[int, ...] = (80, 100)
    timezone: str = "UTC"
    rate: Rate | None = None


class Match(NamedTuple):
    """A budget that applies to a call, with the bucket it applies to (the scope's value, e.g. an agent's name)."""

    budget: Budget
    bucket: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hold `amounts` in every matching bucket for (call, leg). Idempotent: the same (call, leg) is held once."""

    call: str
    leg: int
    tenant: str
    writer: str
    matches: tuple[Match, ...]
    amounts: Amounts
    at: int
    """Nanoseconds since the Unix epoch."""
    ttl: int
    """Seconds after which an unsettled reservation is committed at its estimate."""
    approved: frozenset[str] = frozenset()
    """Ids of `soft` budgets that a person has allowed this call to exceed."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Settle (call, leg) at its `actual` cost; None means the estimate."""

    call: str
    leg: int
    actual: Amounts | None
    at: int


@dataclass(frozen=True, slots=True)
class Release:
    """Give (call, leg) back; only by its own writer and only when no durable `decided` record exists."""

    call: str
    leg: int
    at: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Prolong every open reservation of a live writer by `ttl` seconds from `at`."""

    writer: str
    at: int
    ttl: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Commit at their estimate all reservations that were not renewed in time."""

    at: int


Operation = Reserve | Commit | Release | Renew | Expire


class Remaining(NamedTuple):
    """What is left of one amount in one bucket, and when its window ends (ns; 0 = never)."""

    budget: str
    name: str
    amount: str
    limit: int
    left: int
    resets_at: int


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """Something to record about a budget: `budget.threshold`, `budget.overrun`, `budget.warned`."""

    type: str
    tenant: str
    budget: str
    bucket: str
    data: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Reserved:
    """The reservation is held (or was held before: `repeated`).

    Only an answer with `repeated` False admits a call: a repeated one says that (call, leg) was admitted already, and
    `settled` that it has ended too, so it may be in flight or answered and must not be forwarded again.
    """

    remaining: tuple[Remaining, ...] = ()
    events: tuple[LedgerEvent, ...] = ()
    repeated: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was held. `soft` budgets ask for approval, `hard` ones deny.

    `amount` is an amount's name, or `rate`: then `limit` and `left` are calls and `resets_at` is when the call would
    conform. `retry_after` is in whole seconds (0 = retrying will not help).
    """

    action: Action
    budget: Budget
    bucket: str
    amount: str
    limit: int
    left: int
    resets_at: int
    retry_after: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Commit, release, renew or expire was done; `count` reservations were touched (0 = there was none open)."""

    count: int
    events: tuple[LedgerEvent, ...] = ()


Outcome = Reserved | Refused | Settled


@dataclass(frozen=True, slots=True)
class BudgetUsage:
    """One bucket of a budget in its current window, for people: committed and reserved by amount's name."""

    budget: Budget
    bucket: str
    window_start: int
    resets_at: int
    committed: Mapping[str, int]
    reserved: Mapping[str, int]
