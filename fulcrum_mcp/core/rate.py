"""Rates by the generic cell rate algorithm (ITU-T I.371): one number per bucket, the theoretical arrival time.

Everything is counted in whole microseconds: exact in a double, so a store that has nothing else (Lua in Redis) gives
the same answers. An interval is rounded up: a rate never admits more than was asked for, a million a second at most.
"""

import re
from typing import NamedTuple

from fulcrum_mcp.core.budget import Rate
from fulcrum_mcp.core.window import LONGEST
from fulcrum_mcp.errors import Invalid

__all__ = ["Pace", "interval_of", "parse_rate", "step"]

SECOND = 1_000_000
"""In microseconds."""
_PERIODS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_PATTERN = re.compile(r"(?P<limit>\d{1,9})/(?P<period>[a-z]+|\d{1,9})(?::(?P<burst>\d{1,9}))?", re.ASCII)


class Pace(NamedTuple):
    """What a rate says of `calls` at one moment.

    `arrival` is the bucket's new theoretical arrival time if they are admitted; `left` are the calls possible now;
    `conforms_at` is when they would conform (us; 0 = never, the burst is too small).
    """

    conforms: bool
    arrival: int
    left: int
    conforms_at: int


def interval_of(rate: Rate) -> int:
    """Microseconds between two calls at the steady rate."""
    return -(-rate.period * SECOND // rate.limit)


def step(rate: Rate, arrival: int, calls: int, at: int) -> Pace:
    """Ask for `calls` at `at` (us), in a bucket whose theoretical arrival time is `arrival` (0 = never used).

    An arrival time further ahead than the burst allows can only come from a clock that went backwards: it is taken
    as a bucket that has just been emptied, so it recovers, and gives nothing away.
    """
    interval = interval_of(rate)
    tolerance = interval * rate.burst
    arrival = min(max(arrival, at), at + tolerance)
    left = (at + tolerance - arrival) // interval
    if calls <= left:
        return Pace(conforms=True, arrival=arrival + calls * interval, left=left, conforms_at=at)
    conforms_at = arrival + calls * interval - tolerance if calls <= rate.burst else 0
    return Pace(conforms=False, arrival=at + tolerance, left=left, conforms_at=conforms_at)


def parse_rate(value: object, where: str) -> Rate:
    """`N/PERIOD[:BURST]`, such as 10/minute:3; PERIOD is second to week, or seconds. Raises `Invalid`."""
    match = _PATTERN.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    form = "write N/PERIOD[:BURST], for example 10/minute:3"
    if match is None:
        raise Invalid(f'{where}: rate "{value}" cannot be read; {form}.')
    name = match["period"]
    period = int(name) if name.isdecimal() else _PERIODS.get(name, 0)
    if period == 0:
        raise Invalid(f'{where}: rate "{value}": "{name}" is not one of {", ".join(_PERIODS)} or seconds; {form}.')
    limit = int(match["limit"])
    burst = limit if match["burst"] is None else int(match["burst"])
    if limit == 0 or burst == 0:
        raise Invalid(f'{where}: rate "{value}" allows nothing; use a limit of calls = 0 to block, or {form}.')
    if period * burst > LONGEST * limit:
        raise Invalid(f'{where}: rate "{value}" takes more than {LONGEST} seconds to refill; use a smaller burst.')
    return Rate(limit, period, burst)
