"""Where telemetry goes, and as whose."""

from dataclasses import dataclass, field

from opentelemetry.sdk.resources import Resource

__all__ = ["TelemetryConfig"]


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """`endpoint` is the collector's base URL (OTLP/HTTP, usually port 4318). Times in seconds."""

    endpoint: str
    service: str = "fulcrum"
    version: str = ""
    instance: str = ""
    every: float = 15.0
    """Between two exports of metrics."""
    timeout: float = 5.0
    leaving: float = 2.0
    """For what still waits at the end; whoever ends must not wait longer for a collector that is silent."""
    queue: int = 8192
    """Spans that may wait; beyond it the newest are dropped."""
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def url(self, signal: str) -> str:
        """Of one signal, as the OTLP specification derives it from a base URL."""
        return f"{self.endpoint.rstrip('/')}/v1/{signal}"

    def resource(self) -> Resource:
        """Who speaks (semantic conventions for service)."""
        return Resource(
            {
                "service.name": self.service,
                "service.version": self.version,
                "service.instance.id": self.instance,
            }
        )
