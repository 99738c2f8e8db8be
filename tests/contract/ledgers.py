"""What the ledger's suites share: adapters to run over, and short words for operations."""

from collections.abc import Iterable
from dataclasses import replace

from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Operation, Outcome, Release, Reserve, Scope
from fulcrum_mcp.ports import BudgetLedger

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOON = 1_795_521_600 * SECOND
"""2026-11-24 12:00 UTC."""

CALLS = Budget("calls", "t", "five a day", Scope("agent"), {"calls": 5})
MONEY = Budget("money", "t", "a dollar a day", Scope("agent"), {"usd_micros": 1_000_000})


def reserve(
    call: str,
    *budgets: Budget,
    amounts: Amounts = Amounts(),  # noqa: B008 (immutable)
    at: int = NOON,
    bucket: str = "bot",
    leg: int = 0,
    writer: str = "w1",
    ttl: int = 60,
    approved: Iterable[str] = (),
) -> Reserve:
    matches = tuple(Match(budget, bucket) for budget in budgets)
    return Reserve(call, leg, "t", writer, matches, amounts, at, ttl, frozenset(approved))


def commit(call: str, actual: Amounts | None = None, *, at: int = NOON, leg: int = 0) -> Commit:
    return Commit(call, leg, actual, at)


def release(call: str, *, at: int = NOON, leg: int = 0) -> Release:
    return Release(call, leg, at)


def apply(ledger: BudgetLedger, operation: Operation) -> Outcome:
    (outcome,) = ledger.apply([operation])
    return outcome


def balance(ledger: BudgetLedger, budget: Budget, at: int = NOON, bucket: str = "bot") -> dict[str, tuple[int, int]]:
    """(committed, reserved) by amount of one bucket."""
    for usage in ledger.usage([budget], at):
        if usage.bucket == bucket:
            return {name: (usage.committed[name], usage.reserved[name]) for name in budget.limits}
    return dict.fromkeys(budget.limits, (0, 0))


def limited(budget: Budget, **limits: int) -> Budget:
    return replace(budget, limits=limits)


def usd(micros: int) -> Amounts:
    return Amounts(usd_micros=micros)
