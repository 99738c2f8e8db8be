"""Budgets as people write them, in a file, an option or a request: one reading, so that all of them mean the same."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, get_args

from fulcrum_mcp.core.amount import AMOUNT_NAMES, parse_limits, parse_thresholds
from fulcrum_mcp.core.budget import Action, Budget, Rate, Scope
from fulcrum_mcp.core.rate import parse_rate
from fulcrum_mcp.core.scope import parse_scope
from fulcrum_mcp.core.window import parse_period, parse_timezone
from fulcrum_mcp.errors import Invalid

__all__ = ["BUDGET_KEYS", "read_budget", "show_limits", "show_rate", "show_scope"]

AMOUNT_KEYS = ("calls", "usd", "usd_micros", "input_tokens", "output_tokens", "tokens", "bytes", "seconds")
BUDGET_KEYS = ("scope", "name", *AMOUNT_KEYS, "rate", "period", "action", "thresholds", "timezone")
_ACTIONS: tuple[Action, ...] = get_args(Action)
_LONGEST_NAME = 128
_LONGEST_ID = 512


def read_budget(fields: Mapping[str, Any], budget_id: str, tenant: str, where: Callable[[str], str]) -> Budget:
    """A budget from written fields; `where(key)` says in whose place a key stands, to begin a complaint with.

    Absent and None are the same. Raises `Invalid`.
    """
    _check_keys(fields, where)
    given = {key: value for key, value in fields.items() if value is not None}
    if "scope" not in given:
        raise Invalid(f"{where('scope')}: scope is missing; add one, such as agent or tool:files__write_file.")
    scope = parse_scope(given["scope"], where("scope"))
    if scope.id is not None:
        _check_text(scope.id, "scope", where, _LONGEST_ID)
    limits: dict[str, int] = {}
    for key in AMOUNT_KEYS:
        if key in given:
            limits |= parse_limits({key: given[key]}, where(key))
    if "usd" in given and "usd_micros" in given:
        raise Invalid(f"{where('usd_micros')}: usd and usd_micros are both given; keep one.")
    rate = parse_rate(given["rate"], where("rate")) if "rate" in given else None
    if not limits and rate is None:
        raise Invalid(f"{where('scope')}: no limit is given; add calls, usd, tokens, bytes, seconds or rate.")
    action = given.get("action", "hard")
    if action not in _ACTIONS:
        near = get_close_matches(str(action), _ACTIONS, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise Invalid(f'{where("action")}: action "{action}" is not one of {", ".join(_ACTIONS)}.{hint}')
    budget = Budget(
        id=budget_id,
        tenant=tenant,
        name="",
        scope=scope,
        limits=limits,
        period=parse_period(given.get("period", "day"), where("period")),
        action=action,
        thresholds=parse_thresholds(given.get("thresholds", (80, 100)), where("thresholds")),
        timezone=parse_timezone(given.get("timezone", "UTC"), where("timezone")),
        rate=rate,
    )
    name = given.get("name", _name(budget))
    if not isinstance(name, str) or not name.strip():
        raise Invalid(f"{where('name')}: name must be text; write one or leave it out.")
    _check_text(name, "name", where, _LONGEST_NAME)
    return replace(budget, name=name.strip())


def _check_keys(fields: Mapping[str, Any], where: Callable[[str], str]) -> None:
    for key in fields:
        if key not in BUDGET_KEYS:
            near = get_close_matches(key, BUDGET_KEYS, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(BUDGET_KEYS)}."
            raise Invalid(f'{where(key)}: unknown key "{key}"; {hint}')


def _check_text(text: str, key: str, where: Callable[[str], str], most: int) -> None:
    if len(text) > most:
        raise Invalid(f"{where(key)}: {key} is longer than {most} characters; shorten it.")
    if not text.isprintable():
        raise Invalid(f"{where(key)}: {key} holds a character that cannot be printed; remove it.")


def _name(budget: Budget) -> str:
    parts = [f"{shown} {amount}" for amount, shown in show_limits(budget.limits).items()]
    said = " and ".join(parts) + (f" per {budget.period}" if parts else "")
    if budget.rate is not None:
        said = f"{said}, {show_rate(budget.rate)}" if parts else show_rate(budget.rate)
    return f"{show_scope(budget.scope)}: {said}"[:_LONGEST_NAME]


def show_scope(scope: Scope) -> str:
    """`KIND[:ID]`."""
    return scope.kind if scope.id is None else f"{scope.kind}:{scope.id}"


def show_rate(rate: Rate) -> str:
    """`N/PERIOD[:BURST]`."""
    names = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day", 604_800: "week"}
    burst = "" if rate.burst == rate.limit else f":{rate.burst}"
    return f"{rate.limit}/{names.get(rate.period, rate.period)}{burst}"


def show_limits(limits: Mapping[str, int]) -> dict[str, str]:
    """Limits for people: dollars with their cents, all others as digits; in the order of `AMOUNT_NAMES`."""
    shown: dict[str, str] = {}
    for name in AMOUNT_NAMES:
        if name in limits and name == "usd_micros":
            shown["usd"] = _dollars(limits[name])
        elif name in limits:
            shown[name] = str(limits[name])
    return shown


def _dollars(micros: int) -> str:
    whole, part = divmod(micros, 1_000_000)
    digits = f"{part:06d}".rstrip("0")
    return f"{whole}.{digits:0<2}"
