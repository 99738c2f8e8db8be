"""Where spans and figures go."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

__all__ = ["Buckets", "Metric", "Point", "Span", "SpanSink"]


class Span(NamedTuple):
    """One finished piece of work, in the terms of OpenTelemetry."""

    name: str
    trace: str
    """32 hex digits."""
    span: str
    """16 hex digits."""
    parent: str | None
    kind: str
    """`server`, `client` or `internal`."""
    began: int
    """Nanoseconds since the Unix epoch."""
    ended: int
    attributes: Mapping[str, str | int | bool]
    error: str | None = None
    """What went wrong, in a word."""


class SpanSink(Protocol):
    """Takes finished spans, *quick*: queues them, drops the newest when it is full, never raises."""

    def export(self, spans: list[Span]) -> None:
        """The spans of one call."""
        ...


class Buckets(NamedTuple):
    """A histogram: how many fell between two bounds (not cumulated; one more than bounds), and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Point(NamedTuple):
    """A figure under its labels."""

    labels: Mapping[str, str]
    value: float | Buckets


class Metric(NamedTuple):
    """A family of figures as they stand now; counters only grow while the process lives."""

    name: str
    """As in docs/reference/metrics.md, without the `_total` of counters."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    points: Sequence[Point]
