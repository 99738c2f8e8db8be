"""Budgets in words: as people write them in a table of `fulcrum.toml` or on the command line, and as they are told."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import get_args

from fulcrum_mcp.core.amount import AMOUNT_NAMES, parse_limits, parse_thresholds
from fulcrum_mcp.core.budget import Action, Budget, Refused, Remaining
from fulcrum_mcp.core.rate import parse_rate
from fulcrum_mcp.core.scope import parse_scope
from fulcrum_mcp.core.window import parse_period, parse_timezone, zone_of
from fulcrum_mcp.errors import Invalid

__all__ = ["amount_text", "parse_action", "parse_budget", "refusal_text", "remaining_text", "reset_text"]

SECOND = 1_000_000_000
_MICROS = 1_000_000
_AMOUNTS = ("usd", *AMOUNT_NAMES)
_FIELDS = ("name", "scope", "period", "action", "thresholds", "timezone", "rate", "limit", *_AMOUNTS)
_NOW = {
    "minute": "this minute",
    "hour": "this hour",
    "day": "today",
    "week": "this week",
    "month": "this month",
    "quarter": "this quarter",
    "year": "this year",
}
_UNITS = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day", 604_800: "week"}


def parse_action(value: object, where: str) -> Action:
    """Warn, soft or hard. Raises `Invalid`."""
    for action in get_args(Action):
        if value == action:
            known: Action = action
            return known
    raise Invalid(f'{where}: action "{value}" is not one of warn, soft (asks for approval) or hard (denies).')


def parse_budget(fields: Mapping[str, object], *, budget_id: str, tenant: str, where: str) -> Budget:
    """A budget from its fields as written; `limit` (of a `[[rate]]` table) is another word for `rate`.

    Raises `Invalid` with `where`, what is wrong, and what would be right.
    """
    for field in fields:
        if field not in _FIELDS:
            near = get_close_matches(field, _FIELDS, 1)
            guess = f' Did you mean "{near[0]}"?' if near else ""
            raise Invalid(f'{where}: "{field}" is not a field of a budget; those are {", ".join(_FIELDS)}.{guess}')
    if "scope" not in fields:
        raise Invalid(f"{where}: scope is missing; write for example scope = agent, or tool:files__write_file.")
    scope = parse_scope(fields["scope"], where)
    limits = parse_limits({name: value for name, value in fields.items() if name in _AMOUNTS}, where)
    written = fields.get("rate", fields.get("limit"))
    rate = None if written is None else parse_rate(written, where)
    if not limits and rate is None:
        raise Invalid(f"{where}: it limits nothing; give one of {', '.join(_AMOUNTS)}, or rate = 10/minute.")
    name = fields.get("name", budget_id)
    if not isinstance(name, str) or not name.strip():
        raise Invalid(f"{where}: name must be text that is not empty, not {name!r}.")
    return Budget(
        id=budget_id,
        tenant=tenant,
        name=name,
        scope=scope,
        limits=limits,
        period=parse_period(fields.get("period", "day"), where),
        action=parse_action(fields.get("action", "hard"), where),
        thresholds=parse_thresholds(fields.get("thresholds", (80, 100)), where),
        timezone=parse_timezone(fields.get("timezone", "UTC"), where),
        rate=rate,
    )


def amount_text(value: int, amount: str) -> str:
    """A number of an amount without its name: dollars for `usd_micros`, else digits in groups."""
    if amount != "usd_micros":
        return f"{value:,}"
    whole, micros = divmod(value, _MICROS)
    decimals = f"{micros:06d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{decimals}"


def _left_text(left: int, limit: int, amount: str) -> str:
    noun = "" if amount == "usd_micros" else " " + amount.replace("_", " ")
    return f"{amount_text(left, amount)} of {amount_text(limit, amount)}{noun} left"


def reset_text(resets_at: int, timezone: str = "UTC", *, dated: bool = True) -> str:
    """When a window ends, in the budget's time zone: `resets 2026-11-25 00:00 UTC`, or `never resets`."""
    if resets_at == 0:
        return "never resets"
    moment = datetime.fromtimestamp(0, zone_of("UTC")) + timedelta(seconds=resets_at // SECOND)
    local = moment.astimezone(zone_of(timezone))
    clock = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"resets {local.date().isoformat() + ' ' if dated else ''}{clock} {timezone}"


def refusal_text(refused: Refused) -> str:
    """Why the ledger said no, for a person or a model: `0 of 5 calls left today, resets 00:00 UTC`."""
    budget = refused.budget
    if refused.amount == "rate" and budget.rate is not None:
        unit = _UNITS.get(budget.rate.period, f"{budget.rate.period} seconds")
        retry = f"try again in {refused.retry_after} s" if refused.retry_after else "more at once than its burst allows"
        return f"rate limit of {budget.rate.limit:,} calls per {unit} reached, {retry}"
    left = _left_text(refused.left, refused.limit, refused.amount)
    when = _NOW.get(budget.period, "" if budget.period == "infinite" else f"in this window of {budget.period} s")
    dated = budget.period not in {"minute", "hour", "day"}
    return f"{left}{' ' if when else ''}{when}, {reset_text(refused.resets_at, budget.timezone, dated=dated)}"


def remaining_text(remaining: Remaining, timezone: str = "UTC") -> str:
    """What is left: `3 of 5 calls left, resets 2026-11-25 00:00 UTC`."""
    if remaining.amount == "rate":
        return f"{remaining.left:,} calls possible at once, {remaining.limit:,} is the rate's limit"
    left = _left_text(remaining.left, remaining.limit, remaining.amount)
    return f"{left}, {reset_text(remaining.resets_at, timezone)}"
