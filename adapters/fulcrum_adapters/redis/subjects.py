"""Whose past it is, and how long it counts."""

from fulcrum_adapters.redis.naming import microseconds

__all__ = ["ENVELOPE_KEPT", "WHOLE", "is_key", "life_of_key", "slice_of"]

ENVELOPE_KEPT = 90 * 86_400_000
"""Milliseconds."""
WHOLE = -1
"""In place of a slice: this subject's calls are counted together."""
_SLICES = 60
_SPARE = 86_400_000
"""Milliseconds for which what counts no more is kept: a clock that went back must find it."""


def is_key(subject: str) -> bool:
    """Whether only the latest past counts."""
    return subject.startswith("key:")


def slice_of(at: int, window: int) -> int:
    """Which slice of a `window` (seconds) a time (ns) is in."""
    return microseconds(at) // max(window * 1_000_000 // _SLICES, 1)


def life_of_key(window: int) -> int:
    """Milliseconds for which a key's past is kept."""
    return window * 1_000 + _SPARE
