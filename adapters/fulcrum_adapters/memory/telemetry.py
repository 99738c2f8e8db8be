"""Spans in memory: for tests."""

from fulcrum_mcp.ports import Span

__all__ = ["MemorySpans"]


class MemorySpans:
    """A `SpanSink` that keeps everything."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def export(self, spans: list[Span]) -> None:
        """See `SpanSink`."""
        self.spans += spans
