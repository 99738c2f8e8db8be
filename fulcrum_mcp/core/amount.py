"""Amounts of a call: their names, their bounds, and how people write them. Integers only, never a float's error."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches

from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.errors import Invalid

__all__ = ["AMOUNT_NAMES", "MAX_AMOUNT", "amount_of", "parse_count", "parse_limits", "parse_thresholds", "parse_usd"]

AMOUNT_NAMES = (*Amounts._fields, "tokens")
MAX_AMOUNT = 2**52
"""The largest amount, limit and balance: a sum of two is exact in a double, which is what Lua in Redis counts in."""

_MICROS = 1_000_000
_MOST_THRESHOLD = 1_000


def amount_of(amounts: Amounts, name: str) -> int:
    """One amount by its name; `tokens` are input and output together."""
    if name == "tokens":
        return amounts.input_tokens + amounts.output_tokens
    value: int = getattr(amounts, name)
    return value


def parse_usd(value: object, where: str) -> int:
    """Dollars as written (1.00, "0.25") in micro-dollars, exactly. Raises `Invalid`."""
    dollars = _decimal(value)
    if dollars is None:
        raise Invalid(f'{where}: usd "{value}" is not an amount of dollars; write for example 1.00.')
    if not dollars.is_finite() or dollars < 0:
        raise Invalid(f'{where}: usd "{value}" must be zero or more; write for example 1.00.')
    if dollars > MAX_AMOUNT // _MICROS:
        raise Invalid(f'{where}: usd "{value}" is too large; the most is {MAX_AMOUNT // _MICROS}.')
    micros = dollars.scaleb(6)
    if micros != micros.to_integral_value():
        raise Invalid(f'{where}: usd "{value}" is finer than a millionth of a dollar; use at most 6 decimals.')
    return int(micros)


def _decimal(value: object) -> Decimal | None:
    """A number as it was written: a float by its shortest text, so that 0.1 is one tenth."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        return Decimal(str(value).strip().removeprefix("$"))
    except InvalidOperation:
        return None


def parse_count(value: object, name: str, where: str) -> int:
    """A whole number, zero or more; underscores are allowed. Raises `Invalid`."""
    number = value
    if isinstance(value, str) and value.isascii() and len(value) <= 40:  # noqa: PLR2004 (2^52 has 16 digits)
        digits = value.strip().replace("_", "")
        number = int(digits) if digits.isdecimal() else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Invalid(f'{where}: {name} "{value}" is not a whole number, zero or more.')
    if number > MAX_AMOUNT:
        raise Invalid(f"{where}: {name} {value} is too large; the most is {MAX_AMOUNT}.")
    return number


def parse_limits(fields: Mapping[str, object], where: str) -> dict[str, int]:
    """Limits as written: the names of `AMOUNT_NAMES`, or `usd` in dollars. Raises `Invalid`."""
    limits: dict[str, int] = {}
    for name, value in fields.items():
        if name == "usd":
            limits["usd_micros"] = parse_usd(value, where)
        elif name in AMOUNT_NAMES:
            limits[name] = parse_count(value, name, where)
        else:
            names = ("usd", *AMOUNT_NAMES)
            near = get_close_matches(name, names, 1)
            guess = f' Did you mean "{near[0]}"?' if near else ""
            raise Invalid(f'{where}: amount "{name}" is not one of {", ".join(names)}.{guess}')
    return limits


def parse_thresholds(value: object, where: str) -> tuple[int, ...]:
    """Percentages, as a list or text such as "50,80,100"; sorted, each once. Raises `Invalid`."""
    parts: list[object]
    if isinstance(value, str):
        parts = [part.strip().removesuffix("%") for part in value.split(",") if part.strip()]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = [value]
    found = {parse_count(part, "threshold", where) for part in parts}
    if any(not 1 <= percent <= _MOST_THRESHOLD for percent in found):
        raise Invalid(f"{where}: thresholds {value} must lie between 1 and {_MOST_THRESHOLD} percent.")
    return tuple(sorted(found))
