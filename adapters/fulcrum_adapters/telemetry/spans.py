"""Spans to a collector, in the background; a collector that is away costs spans, never calls."""

import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from fulcrum_adapters.telemetry.config import TelemetryConfig
from fulcrum_mcp.ports import Span

__all__ = ["OtlpSpans"]

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_BATCH = 512


class OtlpSpans:
    """A `SpanSink`."""

    def __init__(self, config: TelemetryConfig, exporter: SpanExporter | None = None) -> None:
        self._resource = config.resource()
        self._scope = InstrumentationScope("fulcrum", config.version)
        self._leaving = config.leaving
        self._exporter = exporter or OTLPSpanExporter(
            endpoint=config.url("traces"), headers=config.headers, timeout=config.timeout
        )
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=config.queue, max_export_batch_size=min(_BATCH, config.queue)
        )

    def export(self, spans: list[Span]) -> None:
        """See `SpanSink`."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.span, remote=False),
            parent=None if span.parent is None else _context(span.trace, span.parent, remote=True),
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR, span.error),
            start_time=span.began,
            end_time=span.ended,
            instrumentation_scope=self._scope,
        )

    def close(self) -> None:
        """Send what waits, for a moment. Idempotent."""
        sending = threading.Thread(target=self._processor.shutdown, name="fulcrum-last-spans", daemon=True)
        sending.start()
        sending.join(self._leaving)
        if sending.is_alive():  # the processor itself would wait for half a minute
            self._exporter.shutdown()


def _context(trace: str, span: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), remote, TraceFlags(TraceFlags.SAMPLED))
