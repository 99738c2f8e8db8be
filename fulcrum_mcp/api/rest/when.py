"""Moments in queries: RFC 3339, or how long ago."""

import re
from datetime import UTC, datetime

from fulcrum_mcp.errors import Invalid

__all__ = ["moment"]

_AGO = re.compile(r"(\d{1,6})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SECOND = 1_000_000_000


def moment(text: str, field: str, now: int) -> int:
    """Nanoseconds since the epoch of `2026-11-25T10:00:00Z`, or of `90m` before `now`. Raises `Invalid`."""
    ago = _AGO.match(text)
    if ago is not None:
        return max(now - int(ago[1]) * _SECONDS[ago[2]] * _SECOND, 0)
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return max(int(found.timestamp() * 1_000_000) * 1_000, 0)
    except (ValueError, OverflowError):
        raise Invalid(
            f'{field}: "{text[:64]}" is not a time; write 2026-11-25T10:00:00Z, or 90m for 90 minutes ago'
        ) from None
