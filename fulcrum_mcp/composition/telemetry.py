"""Spans and figures on their way out: OTLP to a collector, and `/metrics` without a key on an address of its own."""

import asyncio
from typing import TYPE_CHECKING

from fulcrum_mcp import __version__
from fulcrum_mcp.api.metrics import metrics_route
from fulcrum_mcp.composition.faces import Faces
from fulcrum_mcp.composition.figures import Figures
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.settings import TelemetrySettings

if TYPE_CHECKING:
    from fulcrum_adapters.telemetry import OtlpMetrics, OtlpSpans

__all__ = ["Telemetry"]


class Telemetry:
    """Does nothing where nothing is configured. `instance` names this process."""

    def __init__(self, settings: TelemetrySettings, settler: Settler, figures: Figures, instance: str) -> None:
        self._settings = settings
        self._settler = settler
        self._figures = figures
        self._instance = instance
        self._faces = Faces()
        self._spans: OtlpSpans | None = None
        self._metrics: OtlpMetrics | None = None

    async def begin(self, *, listens: bool) -> None:
        """Export, and listen for Prometheus if this process is to. Raises `Unavailable`."""
        if listens and self._settings.metrics is not None:
            await self._faces.serve(self._settings.metrics, [metrics_route(self._figures.read)])
        if self._settings.otlp_endpoint is None:
            return
        from fulcrum_adapters.telemetry import OtlpMetrics, OtlpSpans, TelemetryConfig  # noqa: PLC0415 - dear
        from fulcrum_mcp.gateway.tracing import Tracer  # noqa: PLC0415 - same

        config = TelemetryConfig(self._settings.otlp_endpoint, version=__version__, instance=self._instance)
        self._spans = OtlpSpans(config)
        self._metrics = OtlpMetrics(config, self._figures.own)
        self._settler.tracer = Tracer(self._spans, self._settings.traces)

    async def close(self) -> None:
        """Send what waits. Idempotent."""
        await self._faces.close()
        self._settler.tracer = None
        ending = [sink.close for sink in (self._spans, self._metrics) if sink is not None]
        self._spans = self._metrics = None
        await asyncio.gather(*map(asyncio.to_thread, ending))
