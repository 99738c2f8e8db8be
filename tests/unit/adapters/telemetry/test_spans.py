"""Spans arrive at a collector as they were; one that is away costs nobody anything."""

import socket
import time

from otlp_collector import open_collector

from fulcrum_adapters.telemetry import OtlpSpans, TelemetryConfig
from fulcrum_mcp.ports import Span

TRACE, ROOT, INNER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
SPANS = [
    Span("tools/call echo", TRACE, ROOT, INNER, "server", 1_000, 9_000, {"fulcrum.leg": 0, "x": "y"}, "timeout"),
    Span("fulcrum policy", TRACE, INNER, ROOT, "internal", 1_000, 2_000, {}),
]


def test_spans_arrive_with_their_places_times_and_words() -> None:
    with open_collector() as collector:
        sink = OtlpSpans(TelemetryConfig(collector.endpoint, version="1", instance="i"))
        sink.export(SPANS)
        sink.close()
    (resource,) = collector.traces[0].resource_spans
    root, inner = resource.scope_spans[0].spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "fulcrum"
    assert (root.trace_id.hex(), root.span_id.hex(), root.parent_span_id.hex()) == (TRACE, ROOT, INNER)
    assert (root.start_time_unix_nano, root.end_time_unix_nano, root.status.message) == (1_000, 9_000, "timeout")
    assert (inner.parent_span_id.hex(), inner.status.code) == (ROOT, 0)


def test_a_collector_that_is_away_does_not_hold_up_calls() -> None:
    sink = OtlpSpans(TelemetryConfig("http://127.0.0.1:9", timeout=0.2, queue=4))
    began = time.perf_counter()
    for _ in range(100):
        sink.export(SPANS)
    assert time.perf_counter() - began < 10, "each would have waited for 0.2 s"
    sink.close()


def test_a_collector_that_never_answers_holds_up_the_end_for_a_moment_only() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        sink = OtlpSpans(TelemetryConfig(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5, leaving=0.2))
        sink.export(SPANS * 1000)
        began = time.perf_counter()
        sink.close()
        assert time.perf_counter() - began < 20
        sink.close()
