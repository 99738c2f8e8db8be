"""The script's answers in the core's words."""

from collections.abc import Sequence
from typing import Any

from fulcrum_adapters.redis.naming import account_of
from fulcrum_adapters.redis.request import unique
from fulcrum_mcp.core.budget import (
    Action,
    LedgerEvent,
    Match,
    Operation,
    Outcome,
    Refused,
    Remaining,
    Reserve,
    Reserved,
    Settled,
)
from fulcrum_mcp.core.window import window_at

__all__ = ["outcome_of", "remaining_of"]

_MICRO = 1_000
_ACTIONS: tuple[Action, ...] = ("warn", "soft", "hard")
_WARNED, _THRESHOLD, _OVERRUN, _PACED = 1, 2, 3, 4
_KINDS = {_WARNED: "budget.warned", _THRESHOLD: "budget.threshold", _OVERRUN: "budget.overrun"}
_ADMITTED, _REFUSED, _REPEATED = 1, 2, 3


def outcome_of(operation: Operation, answer: Sequence[Any], slots: Sequence[Match]) -> Outcome:
    """One operation's outcome; `slots` are the rates that the request numbered."""
    if not isinstance(operation, Reserve):
        return Settled(answer[1], tuple(_event(event, slots) for event in answer[2]))
    if answer[0] == _REPEATED:
        return Reserved(repeated=True, settled=bool(answer[1]))
    if answer[0] == _REFUSED:
        return _refused(operation, answer)
    assert answer[0] == _ADMITTED
    _, lefts, paces, events = answer
    remaining = tuple(_claims(operation.matches, operation.at, lefts)) + tuple(_paces(operation.matches, paces))
    return Reserved(remaining, tuple([_event(event, slots) for event in events]))


def remaining_of(matches: Sequence[Match], at: int, lefts: Sequence[int], paces: Sequence[int]) -> list[Remaining]:
    """What a look found, in the order of the matches: the limits of each, then its rate."""
    found: list[Remaining] = []
    place = pace = 0
    for match in matches:
        budget = match.budget
        found += _claims([match], at, lefts[place : place + len(budget.limits)])
        place += len(budget.limits)
        if budget.rate is not None:
            found += _paces([match], paces[pace : pace + 2])
            pace += 2
    return found


def _claims(matches: Sequence[Match], at: int, lefts: Sequence[int]) -> list[Remaining]:
    found: list[Remaining] = []
    for budget, _ in unique(matches) if len(matches) > 1 else matches:
        if budget.limits:
            ends = window_at(budget.period, budget.timezone, at).end
            for name, limit in budget.limits.items():
                found.append(Remaining(budget.id, budget.name, name, limit, lefts[len(found)], ends))
    return found


def _paces(matches: Sequence[Match], paces: Sequence[int]) -> list[Remaining]:
    found: list[Remaining] = []
    for budget, _ in unique(matches) if len(matches) > 1 else matches:
        if budget.rate is not None:
            left, after = paces[2 * len(found) : 2 * len(found) + 2]
            found.append(Remaining(budget.id, budget.name, "rate", budget.rate.limit, left, after * _MICRO))
    return found


def _refused(operation: Reserve, answer: Sequence[Any]) -> Refused:
    _, number, place, action, left, resets_at, wait = answer
    budget, bucket = unique(operation.matches)[number - 1]
    if place == 0:
        assert budget.rate is not None
        amount, limit = "rate", budget.rate.limit
    else:
        amount, limit = list(budget.limits.items())[place - 1]
    return Refused(_ACTIONS[action], budget, bucket, amount, limit, left, resets_at * _MICRO, wait)


def _event(event: Sequence[Any], slots: Sequence[Match]) -> LedgerEvent:
    if event[0] == _PACED:
        budget, bucket = slots[event[2] - 1]
        assert budget.rate is not None
        paced: dict[str, int | str] = {"amount": "rate", "limit": budget.rate.limit, "period": budget.rate.period}
        return LedgerEvent("budget.warned", event[1], budget.id, bucket, paced)
    kind, tenant, key, committed, reserved, limit, ends, *extra = event
    _, budget_id, bucket, amount, start = account_of(key)
    data: dict[str, int | str] = {
        "amount": amount,
        "limit": limit,
        "committed": committed,
        "reserved": reserved,
        "window_start": start,
        "resets_at": ends * _MICRO,
    }
    if kind == _THRESHOLD:
        data["threshold"] = extra[0]
    elif kind == _OVERRUN:
        leg, _, call = extra[0].partition(":")
        data |= {"call": call, "leg": int(leg), "estimate": extra[1], "actual": extra[2]}
    return LedgerEvent(_KINDS[kind], tenant, budget_id, bucket, data)
