"""The end of a call that was denied though its admission stands in the trail: nothing was forwarded, nothing spent."""

from typing import Any

import msgspec

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.records import FINISHED
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import OpenCall

__all__ = ["never_sent_draft"]


def never_sent_draft(call: OpenCall) -> RecordDraft:
    """`finished`, cancelled, charged nothing."""
    decided: dict[str, Any] = msgspec.json.decode(call.data)
    kept: dict[str, Any] = {
        name: decided[name] for name in ("decision_id", "call_id", "leg", "server", "tool") if name in decided
    }
    data: dict[str, Any] = {**kept, "outcome": "cancelled", "is_error": True, "cost": {}, "charged": {}}
    return RecordDraft(
        id=new_id(), tenant=call.tenant, type=FINISHED, subject=call.call, time=now_ns(), data=encode(data)
    )
