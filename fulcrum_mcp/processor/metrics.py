"""A processor's figures as families of metrics, by the names of docs/reference/metrics.md."""

from collections.abc import Iterator

from fulcrum_mcp.ports import Metric, Point
from fulcrum_mcp.processor.service import Figures

__all__ = ["processor_metrics"]


def processor_metrics(figures: Figures) -> Iterator[Metric]:
    """What is not known is left out; what only the leader knows is 0 elsewhere."""
    yield _counter("records", "Records stored, those that came again included.", figures.stored)
    yield _counter("dead_letters", "What could not be stored as a record; each is kept whole.", figures.dead_letters)
    if figures.messages is not None and figures.unacknowledged is not None:
        waiting = figures.messages + figures.unacknowledged
        yield _gauge("lag_messages", "Messages in the stream that no processor has stored.", waiting)
    yield _gauge("lag_seconds", "Age of the oldest record that is not stored, at most.", figures.lag_seconds)
    yield _gauge("leader", "1 in the processor that checks chains and signs checkpoints.", figures.leader)
    yield _gauge("broken_chains", "Chains in which a record is changed or forked.", len(figures.broken))
    yield _gauge("waiting_chains", "Chains that wait for a record while later ones are stored.", len(figures.gaps))
    longest = max((seconds for _, seconds in figures.gaps.values()), default=0.0)
    yield _gauge("waiting_seconds", "For how long the first of them waits.", longest)
    yield _gauge("unsigned_records", "Records that are checked and that no checkpoint covers.", figures.unsigned)
    yield _counter("checkpoints", "Checkpoints signed.", figures.checkpoints)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return Metric(f"fulcrum_processor_{name}", "counter", help_text, [Point({}, value)])


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return Metric(f"fulcrum_processor_{name}", "gauge", help_text, [Point({}, value)])
