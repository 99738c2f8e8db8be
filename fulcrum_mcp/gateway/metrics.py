"""A gateway's figures as families of metrics, by the names of docs/reference/metrics.md."""

from collections import Counter
from collections.abc import Iterator, Mapping

from fulcrum_mcp.gateway.figures import BOUNDS, Histogram
from fulcrum_mcp.gateway.hub import Hub
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.ports import Buckets, Metric, Point

__all__ = ["gateway_metrics", "gauge"]

_BUDGET_CODES = ("budget_exceeded", "rate_limited")
_POLICY_ERROR = "policy_error"


def gateway_metrics(hub: Hub, journal: Journal) -> Iterator[Metric]:
    """What the data plane of this process has done."""
    figures = hub.settler.figures
    yield Metric(
        "fulcrum_calls",
        "counter",
        "Governed calls by how they were decided and how they ended.",
        [
            Point({"server": server, "method": method, "effect": effect, "outcome": outcome}, count)
            for (server, method, effect, outcome), count in figures.calls.items()
        ],
    )
    yield _counter("fulcrum_denials", "Refused calls by the code of the first reason.", "code", figures.denials)
    blindly = sum(exchange.counted["forwarded_without_decision"] for exchange in hub.exchanges.values())
    yield Metric(
        "fulcrum_forwarded_without_decision",
        "counter",
        "Calls that were forwarded without a durable decision: stays 0.",
        [Point({}, blindly)],
    )
    yield Metric("fulcrum_journal_faults", "counter", "Ticks of the journal that failed.", [Point({}, journal.faults)])
    refusals = sum(figures.denials[code] for code in _BUDGET_CODES)
    yield Metric("fulcrum_budget_refusals", "counter", "Calls that a budget or a rate refused.", [Point({}, refusals)])
    errors = figures.denials[_POLICY_ERROR]
    yield Metric("fulcrum_policy_errors", "counter", "Calls denied because a policy failed.", [Point({}, errors)])
    yield _histograms(
        "fulcrum_call_duration_seconds", "From request to the end of the answer.", "server", figures.durations
    )
    yield _histograms("fulcrum_stage_duration_seconds", "Stages of a call.", "stage", figures.stages)


def gauge(name: str, help_text: str, value: float, **labels: str) -> Metric:
    """One figure that goes up and down."""
    return Metric(name, "gauge", help_text, [Point(labels, value)])


def _counter(name: str, help_text: str, label: str, counted: Counter[str]) -> Metric:
    return Metric(name, "counter", help_text, [Point({label: key}, count) for key, count in counted.items()])


def _histograms(name: str, help_text: str, label: str, found: Mapping[str, Histogram]) -> Metric:
    points = [
        Point({label: key}, Buckets(BOUNDS, list(histogram.buckets), histogram.total_us / 1_000_000))
        for key, histogram in found.items()
    ]
    return Metric(name, "histogram", help_text, points)
