"""A real gateway tells a collector about its calls, and Prometheus about its figures."""

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from governed_processes import Up, free_port, marking_http, tool_call, until
from otlp_collector import Collector, open_collector
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.service, pytest.mark.anyio]

ADMIN = "flcrm_sk_adm1nkey_" + "a1b2c3d4e5f6g7h8" * 3
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def watched(folder: Path, collector: Collector, more: Sequence[str] = ()) -> AsyncIterator[tuple[Up, str]]:
    """A gateway, and where its figures are shown without a key."""
    async with marking_http(folder / "notes") as url:
        config = folder / "fulcrum.toml"
        await asyncio.to_thread(config.write_text, f'[[server]]\nname = "marks"\nurl = "{url}"\n')
        up = Up(folder / "data", config, folder / "log", more=more)
        metrics = f"127.0.0.1:{free_port()}"
        up.environ = {
            **os.environ,
            "FULCRUM_ADMIN_KEY": ADMIN,
            "FULCRUM_TELEMETRY_OTLP_ENDPOINT": collector.endpoint,
            "FULCRUM_TELEMETRY_METRICS": metrics,
        }
        try:
            await up.start()
            yield up, f"http://{metrics}/metrics"
        finally:
            await up.close()


def fetch(url: str, key: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={} if key is None else {"x-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def traced_call(url: str) -> None:
    message = tool_call(1, "mark", "hunter2")
    message["params"]["_meta"] = {**message["params"]["_meta"], "traceparent": f"00-{TRACE}-{PARENT}-01"}
    request = urllib.request.Request(
        f"{url}/servers/marks/mcp",
        data=json.dumps(message).encode(),
        headers={
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "mark",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


async def test_a_call_is_a_span_in_its_callers_trace_and_a_figure(tmp_path: Path) -> None:
    with open_collector() as collector:
        async with watched(tmp_path, collector) as (up, page):
            await asyncio.to_thread(traced_call, up.url)
            status, text = await asyncio.to_thread(fetch, page)
            assert status == 200
            families = {family.name: family for family in text_string_to_metric_families(text)}
            (calls,) = families["fulcrum_calls"].samples
            assert (calls.labels["server"], calls.labels["outcome"], calls.value) == ("marks", "ok", 1)
            assert families["fulcrum_forwarded_without_decision"].samples[0].value == 0
            beside = f"{up.url}/metrics"
            assert (await asyncio.to_thread(fetch, beside))[0] == 401
            assert (await asyncio.to_thread(fetch, beside, ADMIN))[0] == 200
            assert await up.end(signal.SIGTERM) == 0
        spans = [
            span
            for request in collector.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        (root,) = [span for span in spans if span.name == "tools/call mark"]
        assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
        assert {span.name for span in spans} == {"tools/call mark", "fulcrum policy", "fulcrum journal"}
        assert "hunter2" not in str(spans)
        exported = {
            metric.name
            for request in collector.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        assert {"fulcrum_calls", "fulcrum_call_duration_seconds", "fulcrum_ready"} <= exported


async def test_a_collector_that_is_away_changes_nothing_for_calls(tmp_path: Path) -> None:
    nobody = Collector()
    nobody.endpoint = f"http://127.0.0.1:{free_port()}"
    async with watched(tmp_path, nobody) as (up, _):
        for number in range(20):
            answer = await up.call("mark", f"call-{number}")
            assert answer is not None
            assert not answer["result"].get("isError")
        assert await up.end(signal.SIGTERM) == 0, up.log.read_text()


def counted(page: str, key: str | None = None) -> dict[str, float]:
    """Calls by worker; those that have answered and counted nothing yet are there, too."""
    status, text = fetch(page, key)
    assert status == 200, text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {sample.labels["worker"]: 0.0 for sample in families["fulcrum_in_flight"].samples}
    for sample in families["fulcrum_calls"].samples if "fulcrum_calls" in families else ():
        found[sample.labels["worker"]] += sample.value
    return found


async def test_one_page_shows_what_every_worker_has_counted(tmp_path: Path) -> None:
    with open_collector() as collector:
        async with watched(tmp_path, collector, ("--workers", "2")) as (up, page):

            async def all_told(url: str, key: str | None, calls: int) -> bool:
                found = await asyncio.to_thread(counted, url, key)
                return set(found) == {"1", "2"} and sum(found.values()) == calls

            await until(lambda: all_told(page, None, 0), "both workers are on the page", 30)
            for _ in range(12):  # each over a connection of its own: either worker may take it
                await asyncio.to_thread(traced_call, up.url)
            await until(lambda: all_told(page, None, 12), "every call is counted", 30)
            await until(lambda: all_told(f"{up.url}/metrics", ADMIN, 12), "the same beside the API", 30)
            assert await up.end(signal.SIGTERM) == 0, up.log.read_text()
