"""OpenTelemetry over OTLP/HTTP: spans and metrics to a collector."""

from fulcrum_adapters.telemetry.config import TelemetryConfig
from fulcrum_adapters.telemetry.metrics import OtlpMetrics
from fulcrum_adapters.telemetry.spans import OtlpSpans

__all__ = ["OtlpMetrics", "OtlpSpans", "TelemetryConfig"]
