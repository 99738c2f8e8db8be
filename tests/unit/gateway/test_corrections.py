"""A call that was admitted in the trail and denied to its caller ends there too."""

import msgspec
from audit_trails import decided

from fulcrum_mcp.gateway.corrections import never_sent_draft
from fulcrum_mcp.gateway.records import FINISHED
from fulcrum_mcp.ports import OpenCall


def test_it_is_cancelled_and_charged_nothing() -> None:
    draft = decided("call_1", leg=2, tenant="acme")
    end = never_sent_draft(OpenCall("call_1", 2, "acme", draft.data))
    data = msgspec.json.decode(end.data)
    assert (end.type, end.subject, end.tenant) == (FINISHED, "call_1", "acme")
    assert (data["call_id"], data["leg"], data["outcome"]) == ("call_1", 2, "cancelled")
    assert data["charged"] == {}
    assert end.id != draft.id
