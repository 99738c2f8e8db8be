"""What one gateway has done, as plain numbers: counted on the way of a call, read by whoever shows them."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BOUNDS", "Figures", "Histogram"]

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets, seconds; one more is open."""
_BOUNDS_US: Final = tuple(int(bound * 1_000_000) for bound in BOUNDS)
_MOST_CODES: Final = 100
"""Codes come from policies: what is more than this is counted as `other`."""


class Histogram:
    """Durations in buckets."""

    __slots__ = ("buckets", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        """How many fell into each, not cumulated."""
        self.total_us = 0

    def observe(self, microseconds: int) -> None:
        """One more."""
        self.buckets[bisect_left(_BOUNDS_US, microseconds)] += 1
        self.total_us += microseconds


@dataclass(slots=True)
class Figures:
    """Everything since the start of the process."""

    calls: Counter[tuple[str, str, str, str]] = field(default_factory=Counter[tuple[str, str, str, str]])
    """By (server, method, effect, outcome); a denied call's outcome is `denied`."""
    denials: Counter[str] = field(default_factory=Counter[str])
    """By the code of the first reason."""
    durations: dict[str, Histogram] = field(default_factory=dict[str, Histogram])
    """From request to the end of the answer, by server; forwarded calls only."""
    stages: dict[str, Histogram] = field(default_factory=dict[str, Histogram])
    """`policy`, `journal`, `upstream`."""

    def ended(self, server: str, method: str, outcome: str, microseconds: int) -> None:
        """An admitted call ended."""
        self.calls[server, method, "allow", outcome] += 1
        histogram = self.durations.get(server)
        if histogram is None:
            histogram = self.durations[server] = Histogram()
        histogram.observe(microseconds)

    def denied(self, server: str, method: str, effect: str, code: str) -> None:
        """A call was refused."""
        self.calls[server, method, effect, "denied"] += 1
        known = code in self.denials or len(self.denials) < _MOST_CODES
        self.denials[code if known else "other"] += 1

    def stage(self, name: str, microseconds: int) -> None:
        """One stage of a call took so long."""
        histogram = self.stages.get(name)
        if histogram is None:
            histogram = self.stages[name] = Histogram()
        histogram.observe(microseconds)
