"""Operations as the script reads them: what many of them name is said once."""

from collections.abc import Sequence
from typing import Any, assert_never

from fulcrum_adapters.redis.naming import account_key, joined, microseconds, plain
from fulcrum_mcp.core.amount import AMOUNT_NAMES, MAX_AMOUNT, amount_of
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Expire, Match, Operation, Release, Renew, Reserve
from fulcrum_mcp.core.rate import interval_of
from fulcrum_mcp.core.window import Window, window_at

__all__ = ["Request", "hold_id", "marks", "unique"]

SECOND = 1_000_000_000
_MICROS = 1_000_000
_MOST_TIME = 2**53 - 1
_ACTIONS = {"warn": 0, "soft": 1, "hard": 2}


class Request:
    """One call of the script, being written."""

    __slots__ = ("_places", "_rates", "operations", "paced", "places", "rates")

    def __init__(self) -> None:
        self.places: list[Any] = []
        self.rates: list[Any] = []
        self.paced: list[Match] = []
        """The buckets that `rates` are about."""
        self.operations: list[Any] = []
        self._places: dict[tuple[int, str, int], list[int]] = {}
        self._rates: dict[tuple[int, str], int] = {}

    def add(self, operation: Operation) -> None:
        """Append one operation of the ledger."""
        match operation:
            case Reserve():
                self.operations.append(self._reserve(operation))
            case Commit(call, leg, actual, _):
                self.operations.append([2, hold_id(call, leg), False if actual is None else _named(actual)])
            case Release(call, leg, _):
                self.operations.append([3, hold_id(call, leg)])
            case Renew(writer, at, ttl):
                self.operations.append([4, plain(writer), microseconds(at), _expiry(at, ttl)])
            case Expire(at):
                self.operations.append([5, microseconds(at)])
            case _:
                assert_never(operation)

    def peek(self, matches: Sequence[Match], at: int) -> None:
        """Append a look at what is left in the buckets of one call."""
        wanted: list[int] = []
        rates: list[int] = []
        for budget, bucket in matches:
            if budget.limits:
                wanted += self._limits(budget, bucket, window_at(budget.period, budget.timezone, at))
            if budget.rate is not None:
                rates.append(self._rate(budget, bucket))
        self.operations.append([10, microseconds(at), wanted, rates])

    def _reserve(self, operation: Reserve) -> list[Any]:
        matches: list[Any] = []
        at = operation.at
        for budget, bucket in unique(operation.matches):
            binds = budget.action == "hard" or (budget.action == "soft" and budget.id not in operation.approved)
            wait, claims, rate, calls = 0, list[int](), 0, 0
            if budget.limits:
                window = window_at(budget.period, budget.timezone, at)
                wait = max(-(-(window.end - at) // SECOND), 1) if window.end else 0
                for place, name in zip(self._limits(budget, bucket, window), budget.limits, strict=True):
                    claims += (place, min(max(amount_of(operation.amounts, name), -1), MAX_AMOUNT + 1))
            if budget.rate is not None:
                rate, calls = self._rate(budget, bucket), min(max(operation.amounts.calls, -1), MAX_AMOUNT)
            matches.append([int(binds), wait, claims, rate, calls])
        now, expires = microseconds(at), _expiry(at, operation.ttl)
        return [
            1,
            hold_id(operation.call, operation.leg),
            plain(operation.tenant),
            plain(operation.writer),
            now,
            expires,
            matches,
        ]

    def _limits(self, budget: Budget, bucket: str, window: Window) -> list[int]:
        known = self._places.get((id(budget), bucket, window.start))
        if known is None:
            known = self._places[id(budget), bucket, window.start] = []
            index = f"i{joined(budget.tenant, budget.id)}"
            for name, limit in budget.limits.items():
                key = account_key(budget.tenant, budget.id, bucket, name, window.start)
                self.places.append(
                    [
                        key,
                        index,
                        plain(bucket),
                        window.end // 1_000,
                        min(max(limit, -1), MAX_AMOUNT),
                        _ACTIONS[budget.action],
                        marks(limit, budget.thresholds),
                    ]
                )
                known.append(len(self.places))
        return known

    def _rate(self, budget: Budget, bucket: str) -> int:
        known = self._rates.get((id(budget), bucket))
        if known is None:
            rate = budget.rate
            assert rate is not None
            key = f"r{joined(budget.tenant, budget.id, bucket)}"
            self.rates.append([key, interval_of(rate), rate.burst, _ACTIONS[budget.action]])
            self.paced.append(Match(budget, bucket))
            known = self._rates[id(budget), bucket] = len(self.rates)
        return known


def unique(matches: Sequence[Match]) -> list[Match]:
    """Each bucket of a budget once, the first."""
    seen: set[tuple[str, str, str]] = set()
    found: list[Match] = []
    for match in matches:
        place = (match.budget.tenant, match.budget.id, match.bucket)
        if place not in seen:
            seen.add(place)
            found.append(match)
    return found


def hold_id(call: str, leg: int) -> str:
    """A reservation's name."""
    return f"{leg}:{plain(call)}"


def marks(limit: int, thresholds: Sequence[int]) -> list[int]:
    """Each threshold and the least use that reaches it, so that nobody multiplies beyond what is exact."""
    found: list[int] = []
    for percent in sorted(thresholds):
        found += (percent, min(-(-limit * percent // 100), 2**54))
    return found


def _expiry(at: int, ttl: int) -> int:
    return min(microseconds(at) + ttl * _MICROS, _MOST_TIME)


def _named(actual: Amounts) -> dict[str, int]:
    return {name: min(max(amount_of(actual, name), 0), MAX_AMOUNT) for name in AMOUNT_NAMES}
