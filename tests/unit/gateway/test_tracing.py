"""A governed call is a span in its caller's trace, and its upstream's parent."""

import json
from typing import Any

import pytest
from gateway_rig import Rig, open_rig
from scripted_server import ScriptedServer

from fulcrum_adapters.memory.telemetry import MemorySpans
from fulcrum_mcp.gateway.trace import parse_traceparent
from fulcrum_mcp.gateway.tracing import Tracer

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {"secret": "hunter2"}}
ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DENY = """package fulcrum.policies.no

import rego.v1

allow := true

deny contains {"code": "no", "message": "no"} if input.phase == "call"
"""


def traced(rig: Rig, share: float = 1.0) -> MemorySpans:
    spans = MemorySpans()
    rig.hub.settler.tracer = Tracer(spans, share)
    return spans


async def call(rig: Rig, traceparent: str | None = None) -> None:
    meta = {} if traceparent is None else {"_meta": {"traceparent": traceparent}}
    await rig.client(PATH).request("tools/call", {**ECHO, **meta})
    await rig.settled()


def told(server: ScriptedServer) -> tuple[str, str]:
    """What the upstream saw: in the header, in the message."""
    request = server.requests[-1]
    message: Any = json.loads(request.message)
    header = dict(request.headers)[b"traceparent"].decode()
    return header, message["params"]["_meta"]["traceparent"]


async def test_a_callers_trace_goes_on_to_the_upstream_with_the_call_as_parent() -> None:
    server = ScriptedServer("files")
    async with open_rig(server) as rig:
        spans = traced(rig)
        await call(rig, f"00-{ID}-{PARENT}-01")
        root, *stages = spans.spans
        assert (root.trace, root.parent, root.kind, root.error) == (ID, PARENT, "server", None)
        assert [(stage.name, stage.parent) for stage in stages] == [
            ("fulcrum policy", root.span),
            ("fulcrum journal", root.span),
        ]
        assert told(server) == (f"00-{ID}-{root.span}-01",) * 2
        assert root.began <= stages[0].began <= stages[1].ended <= root.ended
        assert root.attributes["fulcrum.outcome"] == "ok"
        assert "hunter2" not in repr(spans.spans)


async def test_a_trace_that_the_caller_does_not_record_is_passed_on_and_not_recorded() -> None:
    server = ScriptedServer("files")
    async with open_rig(server) as rig:
        spans = traced(rig)
        await call(rig, f"00-{ID}-{PARENT}-00")
        assert spans.spans == []
        found = parse_traceparent(told(server)[0])
        assert found is not None
        assert (found[0], found[2]) == (ID, False)


@pytest.mark.parametrize(("share", "recorded"), [(1.0, 3), (0.0, 0)])
async def test_a_call_without_a_trace_begins_one(share: float, recorded: int) -> None:
    server = ScriptedServer("files")
    async with open_rig(server) as rig:
        spans = traced(rig, share)
        await call(rig, "not-a-traceparent")
        assert len(spans.spans) == recorded
        found = parse_traceparent(told(server)[1])
        assert found is not None
        assert found[2] is bool(recorded)


async def test_a_denied_call_is_a_span_with_its_reason() -> None:
    async with open_rig(ScriptedServer("files"), rego=[DENY]) as rig:
        spans = traced(rig)
        await call(rig)
        (root,) = spans.spans
        assert (root.attributes["fulcrum.effect"], root.attributes["fulcrum.code"]) == ("deny", "no")


async def test_without_a_tracer_nothing_is_added() -> None:
    server = ScriptedServer("files")
    async with open_rig(server) as rig:
        await call(rig, "as-it-came")
        message: Any = json.loads(server.requests[-1].message)
        assert message["params"]["_meta"]["traceparent"] == "as-it-came"
        assert b"traceparent" not in dict(server.requests[-1].headers)
