"""Metrics to a collector, every few seconds, from the same families that `/metrics` shows."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fulcrum_adapters.telemetry.config import TelemetryConfig
from fulcrum_mcp.ports import Buckets, Metric, Point

__all__ = ["OtlpMetrics"]

_log = structlog.get_logger("fulcrum.telemetry")


class OtlpMetrics:
    """Exports what `read` says; on a thread of its own."""

    def __init__(
        self, config: TelemetryConfig, read: Callable[[], Sequence[Metric]], exporter: MetricExporter | None = None
    ) -> None:
        self._config = config
        self._read = read
        self._exporter = exporter or OTLPMetricExporter(
            endpoint=config.url("metrics"), headers=config.headers, timeout=config.timeout
        )
        self._began = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fulcrum-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._config.every):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.export()
        except Exception:  # noqa: BLE001 - read while the loop counts on: what failed now is told the next time
            _log.exception("metrics not exported")

    def export(self) -> None:
        """Send them now."""
        now = time.time_ns()
        metrics = [self._metric(metric, now) for metric in self._read() if metric.points]
        scope = sdk.ScopeMetrics(InstrumentationScope("fulcrum", self._config.version), metrics, "")
        resource = sdk.ResourceMetrics(self._config.resource(), [scope], "")
        self._exporter.export(sdk.MetricsData([resource]), timeout_millis=self._config.timeout * 1000)

    def _metric(self, metric: Metric, now: int) -> sdk.Metric:
        cumulative = AggregationTemporality.CUMULATIVE
        data: sdk.Sum | sdk.Gauge | sdk.Histogram
        if metric.kind == "histogram":
            data = sdk.Histogram([self._histogram(point, now) for point in metric.points], cumulative)
        elif metric.kind == "counter":
            data = sdk.Sum([self._number(point, now) for point in metric.points], cumulative, is_monotonic=True)
        else:
            data = sdk.Gauge([self._number(point, now) for point in metric.points])
        return sdk.Metric(metric.name, metric.help, "s" if metric.name.endswith("_seconds") else "1", data)

    def _number(self, point: Point, now: int) -> sdk.NumberDataPoint:
        assert not isinstance(point.value, Buckets)
        return sdk.NumberDataPoint(dict(point.labels), self._began, now, point.value)

    def _histogram(self, point: Point, now: int) -> sdk.HistogramDataPoint:
        buckets = point.value
        assert isinstance(buckets, Buckets)
        return sdk.HistogramDataPoint(
            attributes=dict(point.labels),
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=sum(buckets.counts),
            sum=buckets.total,
            bucket_counts=list(buckets.counts),
            explicit_bounds=list(buckets.bounds),
            min=0.0,
            max=buckets.bounds[-1],
        )

    def close(self) -> None:
        """Send a last time, and stop. Idempotent."""
        self._stopping.set()
        self._thread.join(self._config.leaving)
        self._exporter.shutdown()
