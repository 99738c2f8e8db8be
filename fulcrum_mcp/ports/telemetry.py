"""Where spans go."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

__all__ = ["Span", "SpanSink"]


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
