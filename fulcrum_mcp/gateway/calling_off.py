"""What tells an upstream that a call was stopped, where giving up its stream does not say so."""

from dataclasses import replace
from typing import Any, Final

from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Incoming
from fulcrum_mcp.gateway.ticket import Ticket
from fulcrum_mcp.gateway.wire import Message, encode

__all__ = ["calling_off"]

_SPECIFIED: Final = "io.modelcontextprotocol/"


def calling_off(incoming: Incoming, message: Message, ticket: Ticket) -> tuple[Incoming, Message] | None:
    """What to send after the request of a stopped call; None where closing its stream has cancelled it (2026-07-28)."""
    document: dict[str, Any] = {"jsonrpc": "2.0"}
    params: dict[str, Any]
    if ticket.task is not None:
        params = {"taskId": ticket.task}
        document |= {"id": f"fulcrum-{new_id()}", "method": "tasks/cancel", "params": params}
    elif not incoming.modern:
        params = {"requestId": message.id, "reason": "stopped by a kill switch"}
        document |= {"method": "notifications/cancelled", "params": params}
    else:
        return None
    headers = [pair for pair in incoming.headers if pair[0] not in (b"mcp-method", b"mcp-name")]
    if incoming.modern:
        headers.append((b"mcp-method", document["method"].encode()))
        params["_meta"] = {key: message.meta[key] for key in message.meta if key.startswith(_SPECIFIED)}
    note = Message(document, encode(document), "request" if "id" in document else "notification")
    return replace(incoming, headers=headers), note
