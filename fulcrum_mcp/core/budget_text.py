"""Budgets in words: what is left, what is refused and why, when it resets. `core.written` reads and shows budgets."""

from datetime import datetime, timedelta

from fulcrum_mcp.core.budget import Refused, Remaining
from fulcrum_mcp.core.window import zone_of

__all__ = ["amount_text", "refusal_text", "remaining_text", "reset_text"]

SECOND = 1_000_000_000
_MICROS = 1_000_000
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
