"""When a budget's window begins and ends. Windows of a period never overlap and leave no gap, in any time zone."""

from datetime import UTC, date, datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fulcrum_mcp.errors import Invalid

__all__ = ["NAMED_PERIODS", "Window", "parse_period", "parse_timezone", "window_at", "zone_of"]

NAMED_PERIODS = ("minute", "hour", "day", "week", "month", "quarter", "year", "infinite")
SECOND = 1_000_000_000
LONGEST = 100 * 366 * 86_400
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_ELAPSED = {"minute": 60 * SECOND, "hour": 3_600 * SECOND}
_latest: dict[tuple[str, str], "Window"] = {}


class Window(NamedTuple):
    """Nanoseconds since the epoch: `start` is inside, `end` is not; an infinite window is (0, 0)."""

    start: int
    end: int


FOREVER = Window(0, 0)


def window_at(period: str, timezone: str, at: int) -> Window:
    """The window of `period` that holds `at`.

    Days and longer begin at local midnight, so a day has 23 or 25 hours when clocks change. Hours and minutes are
    counted from local midnight. Seconds are counted from the epoch. The latest window of each kind is remembered:
    asking again within it costs one look-up.
    """
    known = _latest.get((period, timezone))
    if known is not None and known.start <= at and (at < known.end or known.end == 0):
        return known
    window = _compute(period, timezone, at)
    _latest[period, timezone] = window
    return window


def _compute(period: str, timezone: str, at: int) -> Window:
    if period == "infinite":
        return FOREVER
    if period.isdecimal():
        length = int(period) * SECOND
        start = at - at % length
        return Window(start, start + length)
    zone = zone_of(timezone)
    today = datetime.fromtimestamp(at // SECOND, zone).date()
    if period in _MONTHS:
        months = _MONTHS[period]
        first = today.month - 1 - (today.month - 1) % months
        return Window(_month_begins(zone, today.year, first), _month_begins(zone, today.year, first + months))
    ordinal, days = today.toordinal(), 1
    if period == "week":
        ordinal, days = ordinal - today.weekday(), 7
    whole = Window(_midnight(zone, ordinal), _midnight(zone, ordinal + days))
    if period not in _ELAPSED:
        return whole
    length = _ELAPSED[period]
    start = at - (at - whole.start) % length
    return Window(start, min(start + length, whole.end))


def _midnight(zone: tzinfo, ordinal: int) -> int:
    local = datetime.fromordinal(ordinal).replace(tzinfo=zone)
    return int(local.timestamp()) * SECOND


def _month_begins(zone: tzinfo, year: int, months: int) -> int:
    """Midnight of the first day, `months` after January."""
    return _midnight(zone, date(year + months // 12, months % 12 + 1, 1).toordinal())


@lru_cache(maxsize=256)
def zone_of(timezone: str) -> tzinfo:
    """The zone of an IANA name; UTC needs no zone data. Raises `Invalid`."""
    if timezone == "UTC":
        return UTC
    try:
        return ZoneInfo(timezone)
    except (OSError, ValueError, LookupError) as exc:
        raise Invalid(
            f'timezone "{timezone}" is not known here; give an IANA name such as Europe/Paris or UTC '
            "(a machine without zone data needs the package tzdata)."
        ) from exc


def parse_timezone(value: object, where: str) -> str:
    """An IANA name. Raises `Invalid`."""
    if not isinstance(value, str):
        raise Invalid(f"{where}: timezone must be text such as Europe/Paris, not {value!r}.")
    try:
        zone_of(value)
    except Invalid as exc:
        raise Invalid(f"{where}: {exc}") from exc
    return value


def parse_period(value: object, where: str) -> str:
    """A named period, or whole seconds. Raises `Invalid`."""
    text = value.strip().lower() if isinstance(value, str) else value
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if isinstance(text, str):
        if text in NAMED_PERIODS:
            return text
        if text.isascii() and text.isdecimal() and 0 < int(text) <= LONGEST:
            return str(int(text))
    names = ", ".join(NAMED_PERIODS)
    near = get_close_matches(str(value), NAMED_PERIODS, 1)
    guess = f' Did you mean "{near[0]}"?' if near else ""
    raise Invalid(f'{where}: period "{value}" is not one of {names} or seconds.{guess}')
