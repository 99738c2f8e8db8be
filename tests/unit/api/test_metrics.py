"""`/metrics` in Prometheus' text format, read back by Prometheus' own parser."""

import pytest
from asgi_driver import Asgi
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.metrics import metrics_route, metrics_text
from fulcrum_mcp.ports import Buckets, Metric, Point

METRICS = [
    Metric("fulcrum_calls", "counter", "Calls.", [Point({"tool": 'a"b\n\\c'}, 3)]),
    Metric("fulcrum_ready", "gauge", "Ready.", [Point({"part": "nats"}, 0)]),
    Metric("fulcrum_call_duration_seconds", "histogram", "Time.", [Point({}, Buckets((0.5, 1.0), (1, 2, 3), 4.5))]),
]


def test_the_text_can_be_read_back() -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics_text(METRICS).decode())}
    (calls,) = families["fulcrum_calls"].samples
    assert (calls.name, calls.labels, calls.value) == ("fulcrum_calls_total", {"tool": 'a"b\n\\c'}, 3)
    assert families["fulcrum_ready"].samples[0].value == 0
    buckets = [
        (sample.labels["le"], sample.value)
        for sample in families["fulcrum_call_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == [("0.5", 1), ("1.0", 3), ("+Inf", 6)]


@pytest.mark.anyio
async def test_who_may_not_read_them_is_refused() -> None:
    async def refuse(request: Request) -> Response | None:
        return None if request.headers.get("x-api-key") == "good" else Response(status_code=401)

    async def read() -> list[Metric]:
        return METRICS

    app = Asgi(Starlette(routes=[metrics_route(read, refuse)]))
    assert (await app.request("GET", "/metrics", [], b"")).status == 401
    answer = await app.request("GET", "/metrics", [(b"x-api-key", b"good")], b"")
    assert (answer.status, b"fulcrum_ready" in answer.body) == (200, True)
