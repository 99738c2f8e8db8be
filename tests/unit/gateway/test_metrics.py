"""The families that a gateway shows, by the names that are documented."""

from pathlib import Path

import pytest
from gateway_rig import open_rig
from scripted_server import ScriptedServer

from fulcrum_mcp.gateway.metrics import gateway_metrics, gauge
from fulcrum_mcp.ports import Buckets

pytestmark = pytest.mark.anyio


async def test_a_call_shows_in_every_family_about_calls() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        await rig.client("/servers/files/mcp").request("tools/call", {"name": "echo", "arguments": {}})
        await rig.client("/servers/files/mcp").request("tools/call", {"name": "nothing", "arguments": {}})
        await rig.settled()
        found = {metric.name: metric for metric in gateway_metrics(rig.hub, rig.journal)}
    calls = {tuple(point.labels.values()): point.value for point in found["fulcrum_calls"].points}
    assert calls == {
        ("files", "tools/call", "allow", "ok"): 1,
        ("files", "tools/call", "deny", "denied"): 1,
    }
    assert found["fulcrum_denials"].points[0].labels == {"code": "unknown_tool"}
    assert found["fulcrum_forwarded_without_decision"].points[0].value == 0
    (duration,) = found["fulcrum_call_duration_seconds"].points
    assert isinstance(duration.value, Buckets)
    assert sum(duration.value.counts) == 1
    assert {point.labels["stage"] for point in found["fulcrum_stage_duration_seconds"].points} == {
        "policy",
        "journal",
        "upstream",
    }


async def test_every_family_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text()
    async with open_rig(ScriptedServer("files")) as rig:
        for metric in gateway_metrics(rig.hub, rig.journal):
            assert metric.name + ("_total" if metric.kind == "counter" else "") in text
    assert gauge("x", "y", 1, part="z").points[0].labels == {"part": "z"}
