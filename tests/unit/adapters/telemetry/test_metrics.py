"""Metrics arrive at a collector as `/metrics` shows them."""

from collections.abc import Sequence
from threading import Event

from otlp_collector import open_collector
from structlog.testing import capture_logs

from fulcrum_adapters.telemetry import OtlpMetrics, TelemetryConfig
from fulcrum_mcp.ports import Buckets, Metric, Point

METRICS = [
    Metric("fulcrum_calls", "counter", "Calls.", [Point({"server": "a"}, 3), Point({"server": "b"}, 4)]),
    Metric("fulcrum_in_flight", "gauge", "Now.", [Point({}, 1.5)]),
    Metric("fulcrum_call_duration_seconds", "histogram", "Time.", [Point({}, Buckets((0.5, 1.0), (1, 2, 3), 4.5))]),
    Metric("fulcrum_nothing", "counter", "Never.", []),
]


def test_every_kind_of_metric_arrives() -> None:
    with open_collector() as collector:
        metrics = OtlpMetrics(TelemetryConfig(collector.endpoint, every=60), lambda: METRICS)
        metrics.export()
        metrics.close()
    found = {metric.name: metric for metric in collector.metrics[0].resource_metrics[0].scope_metrics[0].metrics}
    assert set(found) == {"fulcrum_calls", "fulcrum_in_flight", "fulcrum_call_duration_seconds"}
    calls = found["fulcrum_calls"].sum
    assert calls.is_monotonic
    assert [(point.attributes[0].value.string_value, point.as_int) for point in calls.data_points] == [
        ("a", 3),
        ("b", 4),
    ]
    assert found["fulcrum_in_flight"].gauge.data_points[0].as_double == 1.5
    histogram = found["fulcrum_call_duration_seconds"].histogram.data_points[0]
    assert (list(histogram.bucket_counts), histogram.count, histogram.sum) == ([1, 2, 3], 6, 4.5)
    assert len(collector.metrics) == 2  # closing sends a last time


def test_figures_that_could_not_be_read_are_told_the_next_time() -> None:
    again = Event()
    faults = [RuntimeError("dictionary changed size during iteration")]

    def read() -> Sequence[Metric]:
        if faults:
            raise faults.pop()
        again.set()
        return METRICS

    with open_collector() as collector, capture_logs() as logs:
        metrics = OtlpMetrics(TelemetryConfig(collector.endpoint, every=0.01), read)
        assert again.wait(10)
        metrics.close()
    assert [entry["event"] for entry in logs] == ["metrics not exported"]
    assert collector.metrics
