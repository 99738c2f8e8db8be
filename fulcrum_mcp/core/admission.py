"""Admit, settle, renew, expire: the rules of the ledger, the same over every store.

The law: on a hard budget `committed + reserved` never exceeds the limit by an admission; only an actual cost above its
estimate may carry it over, and then nothing that costs is admitted until the window ends. All budgets that match are
taken together or not at all. Nothing here raises: what cannot be admitted is refused.
"""

from collections.abc import Sequence

from fulcrum_mcp.core.account import Account, Arrival, Book, Hold, State
from fulcrum_mcp.core.amount import MAX_AMOUNT, amount_of
from fulcrum_mcp.core.budget import (
    Budget,
    Commit,
    LedgerEvent,
    Match,
    Rate,
    Refused,
    Release,
    Remaining,
    Renew,
    Reserve,
    Reserved,
    Settled,
)
from fulcrum_mcp.core.rate import Pace, step
from fulcrum_mcp.core.window import window_at

__all__ = ["admit", "expiry", "look", "renew", "settle"]

SECOND = 1_000_000_000
_MICRO = 1_000
_MAX_TIME = 2**63 - 1
_SEVERITY = {"warn": 0, "soft": 1, "hard": 2}


_Claim = tuple[Budget, Account, int, int, bool]
"""What a reservation wants from one account: budget, account, limit, amount, whether that exceeds the limit."""

_Slot = tuple[Budget, Rate, Arrival, Pace]
"""What a reservation wants from one rate."""


def expiry(at: int, ttl: int) -> int:
    """When a reservation of `ttl` seconds made at `at` expires, within 64 bits."""
    return min(at + ttl * SECOND, _MAX_TIME)


def admit(book: Book, operation: Reserve) -> Reserved | Refused:
    """Hold the amounts everywhere, or nowhere."""
    known = book.holds.get((operation.call, operation.leg))
    if known is not None:
        return Reserved(repeated=True, settled=known.state is not State.OPEN)
    claims: list[_Claim] = []
    slots: list[_Slot] = []
    refused: Refused | None = None
    seen: set[tuple[str, str, str]] = set()
    for match in operation.matches:
        place = (match.budget.tenant, match.budget.id, match.bucket)
        if place in seen:
            continue
        seen.add(place)
        if match.budget.limits:
            refused = _heavier(refused, _claim(book, operation, match, claims))
        if match.budget.rate is not None:
            refused = _heavier(refused, _slot(book, operation, match, slots))
    if refused is not None:
        return refused
    return _take(book, operation, claims, slots)


def _claim(book: Book, operation: Reserve, match: Match, claims: list[_Claim]) -> Refused | None:
    budget, bucket = match
    start, ends = window_at(budget.period, budget.timezone, operation.at)
    refused: Refused | None = None
    for name, limit in budget.limits.items():
        key = (budget.tenant, budget.id, bucket, name, start)
        account = book.account(key)
        wanted = amount_of(operation.amounts, name)
        if account is None:
            if 0 < ends <= book.horizon and _binds(budget, operation):
                wait = _seconds(book.horizon - operation.at)
                return Refused("hard", budget, bucket, name, limit, 0, book.horizon, wait)
            account = Account(key, ends, limit, budget.thresholds)
        account.ends = ends  # a period that was changed may begin when the old one did
        used = account.committed + account.reserved
        absurd = wanted < 0 or used + wanted > MAX_AMOUNT
        excess = wanted > 0 and used + wanted > limit
        if absurd or (excess and _binds(budget, operation)):
            action = "hard" if absurd else budget.action
            wait = _seconds(ends - operation.at) if ends and 0 <= wanted <= limit else 0
            refusal = Refused(action, budget, bucket, name, limit, max(limit - used, 0), ends, wait)
            refused = _heavier(refused, refusal)
        claims.append((budget, account, limit, wanted, excess))
    return refused


def _slot(book: Book, operation: Reserve, match: Match, slots: list[_Slot]) -> Refused | None:
    budget, bucket = match
    rate = budget.rate
    assert rate is not None
    key = (budget.tenant, budget.id, bucket)
    arrival = book.arrival(key) or Arrival(key, book.horizon // _MICRO)
    pace = step(rate, arrival.at, operation.amounts.calls, operation.at // _MICRO)
    absurd = operation.amounts.calls < 0
    if absurd or (not pace.conforms and _binds(budget, operation)):
        action = "hard" if absurd else budget.action
        conforms_at = pace.conforms_at * _MICRO
        wait = _seconds(conforms_at - operation.at) if conforms_at else 0
        return Refused(action, budget, bucket, "rate", rate.limit, pace.left, conforms_at, wait)
    slots.append((budget, rate, arrival, pace))
    return None


def _binds(budget: Budget, operation: Reserve) -> bool:
    return budget.action == "hard" or (budget.action == "soft" and budget.id not in operation.approved)


def _heavier(one: Refused | None, other: Refused | None) -> Refused | None:
    """The refusal to tell: hard before soft, then the one that lasts longest (0 = for ever)."""
    if one is None or other is None:
        return one or other
    ranks = [(_SEVERITY[refused.action], refused.retry_after or _MAX_TIME) for refused in (one, other)]
    return other if ranks[1] > ranks[0] else one


def _seconds(nanoseconds: int) -> int:
    return max(-(-nanoseconds // SECOND), 1)


def _take(book: Book, operation: Reserve, claims: list[_Claim], slots: list[_Slot]) -> Reserved:
    events: list[LedgerEvent] = []
    remaining: list[Remaining] = []
    lines: list[tuple[Account, int]] = []
    tenant = operation.tenant
    for budget, account, limit, amount, excess in claims:
        book.accounts[account.key] = account
        account.limit, account.thresholds, account.changed = limit, budget.thresholds, True
        account.reserved += amount
        used = account.committed + account.reserved
        lines.append((account, amount))
        if excess and budget.action == "warn" and not account.warned:
            account.warned = True
            events.append(_event("budget.warned", tenant, account))
        if budget.thresholds and used * 100 >= limit * min(budget.thresholds):
            events += _crossed(tenant, account)
        left = limit - used if used < limit else 0
        remaining.append(Remaining(budget.id, budget.name, account.key[3], limit, left, account.ends))
    for budget, rate, arrival, pace in slots:
        book.arrivals[arrival.key] = arrival
        if not pace.conforms and budget.action == "warn" and not arrival.warned:
            data: dict[str, int | str] = {"amount": "rate", "limit": rate.limit, "period": rate.period}
            events.append(LedgerEvent("budget.warned", tenant, budget.id, arrival.key[2], data))
        arrival.at, arrival.warned, arrival.changed = pace.arrival, not pace.conforms, True
        left = max(pace.left - operation.amounts.calls, 0)
        remaining.append(Remaining(budget.id, budget.name, "rate", rate.limit, left, pace.arrival * _MICRO))
    book.holds[operation.call, operation.leg] = Hold(
        operation.call,
        operation.leg,
        tenant,
        operation.writer,
        expiry(operation.at, operation.ttl),
        lines,
        changed=True,
    )
    return Reserved(tuple(remaining), tuple(events))


def look(book: Book, matches: Sequence[Match], at: int) -> tuple[Remaining, ...]:
    """What is left in each bucket now; changes nothing and promises nothing."""
    found: list[Remaining] = []
    for budget, bucket in matches:
        start, ends = window_at(budget.period, budget.timezone, at)
        for name, limit in budget.limits.items():
            account = book.account((budget.tenant, budget.id, bucket, name, start))
            used = 0 if account is None else account.committed + account.reserved
            found.append(Remaining(budget.id, budget.name, name, limit, max(limit - used, 0), ends))
        if budget.rate is not None:
            arrival = book.arrival((budget.tenant, budget.id, bucket))
            pace = step(budget.rate, 0 if arrival is None else arrival.at, 0, at // _MICRO)
            resets_at = pace.arrival * _MICRO
            found.append(Remaining(budget.id, budget.name, "rate", budget.rate.limit, pace.left, resets_at))
    return tuple(found)


def settle(book: Book, operation: Commit | Release, *, expired: bool = False) -> Settled:
    """Turn a hold into its actual cost, or give it back. `expired`: nobody settled it in time.

    A commit that comes after expiry replaces the estimate by the actual cost, once. A release of what was never held is
    remembered: a reservation that was sent before it and arrives after it admits nothing.
    """
    place = (operation.call, operation.leg)
    hold = book.holds.get(place)
    if hold is None:
        if isinstance(operation, Release):
            book.holds[place] = Hold(*place, "", "", 0, [], State.RELEASED, operation.at, changed=True)
        return Settled(0)
    if hold.state is State.COMMITTED or hold.state is State.RELEASED:
        return Settled(0)
    actual = operation.actual if isinstance(operation, Commit) else None
    late = hold.state is State.EXPIRED
    if late and actual is None:
        return Settled(0)
    events: list[LedgerEvent] = []
    for account, held in hold.lines:
        if late:
            account.committed = max(account.committed - held, 0)
        else:
            account.reserved -= held
        account.changed = True
        if isinstance(operation, Release):
            continue
        cost = held if actual is None else min(max(amount_of(actual, account.key[3]), 0), MAX_AMOUNT)
        account.committed = min(account.committed + cost, MAX_AMOUNT)
        if cost > held:
            extra: dict[str, int | str] = {
                "call": hold.call,
                "leg": hold.leg,
                "estimate": held,
                "actual": cost,
            }
            events.append(_event("budget.overrun", hold.tenant, account, extra))
            events += _crossed(hold.tenant, account)
    if isinstance(operation, Release):
        hold.state = State.RELEASED
    else:
        hold.state = State.EXPIRED if expired else State.COMMITTED
    hold.settled_at, hold.changed = operation.at, True
    return Settled(1, tuple(events))


def renew(hold: Hold, operation: Renew) -> bool:
    """Prolong an open hold of this writer; it never becomes shorter."""
    if hold.state is not State.OPEN or hold.writer != operation.writer:
        return False
    hold.expires = max(hold.expires, expiry(operation.at, operation.ttl))
    return True


def _crossed(tenant: str, account: Account) -> list[LedgerEvent]:
    """A `budget.threshold` event for each threshold reached for the first time in this window."""
    used = account.committed + account.reserved
    events: list[LedgerEvent] = []
    if used == 0:
        return events
    for percent in sorted(account.thresholds):
        if percent > account.notified and used * 100 >= account.limit * percent:
            account.notified = percent
            events.append(_event("budget.threshold", tenant, account, {"threshold": percent}))
    return events


def _event(kind: str, tenant: str, account: Account, extra: dict[str, int | str] | None = None) -> LedgerEvent:
    _, budget, bucket, amount, start = account.key
    data: dict[str, int | str] = {
        "amount": amount,
        "limit": account.limit,
        "committed": account.committed,
        "reserved": account.reserved,
        "window_start": start,
        "resets_at": account.ends,
    }
    return LedgerEvent(kind, tenant, budget, bucket, data | (extra or {}))
