"""`/metrics`: every figure in Prometheus' text format. What a figure means: docs/reference/metrics.md."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fulcrum_mcp.ports import Buckets, Metric

__all__ = ["CONTENT_TYPE", "metrics_route", "metrics_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        """What `prometheus_client` asks a collector."""
        return map(_family, self._metrics)


def metrics_text(metrics: Iterable[Metric]) -> bytes:
    """All families in the text format."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - 0.1 s that a start does not pay

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    return generate_latest(registry)


def metrics_route(
    read: Callable[[], Awaitable[Sequence[Metric]]], refuse: Callable[[Request], Any] | None = None
) -> Route:
    """The route. `refuse` awaits to the answer for who may not read them, or to None; without it everybody may."""

    async def metrics(request: Request) -> Response:
        refused = None if refuse is None else await refuse(request)
        if isinstance(refused, Response):
            return refused
        return Response(metrics_text(await read()), headers={"cache-control": "no-store"}, media_type=CONTENT_TYPE)

    return Route("/metrics", metrics)


def _family(metric: Metric) -> Any:
    from prometheus_client import core  # noqa: PLC0415 - same

    labels = sorted({label for point in metric.points for label in point.labels})
    family: Any
    if metric.kind == "histogram":
        family = core.HistogramMetricFamily(metric.name, metric.help, labels=labels)
    elif metric.kind == "counter":
        family = core.CounterMetricFamily(metric.name, metric.help, labels=labels)
    else:
        family = core.GaugeMetricFamily(metric.name, metric.help, labels=labels)
    for point in metric.points:
        values = [point.labels.get(label, "") for label in labels]
        if isinstance(point.value, Buckets):
            family.add_metric(values, _cumulated(point.value), point.value.total)
        else:
            family.add_metric(values, point.value)
    return family


def _cumulated(buckets: Buckets) -> list[tuple[str, float]]:
    bounds = [*map(str, buckets.bounds), "+Inf"]
    return list(zip(bounds, accumulate(buckets.counts), strict=True))
