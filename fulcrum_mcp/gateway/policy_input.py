"""The policy input document: what a policy sees of a call, as JSON text."""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec import Raw

from fulcrum_mcp.core.call import Call, Context, Phase, Principal, Tool
from fulcrum_mcp.gateway.identity_cache import IdentityCache
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import HistoryView

__all__ = ["list_document", "policy_document", "principal_raw", "redacted_document", "with_result"]

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


_KEPT = 4096


def _principal_raw(principal: Principal) -> Raw:
    value: dict[str, Any] = {
        "tenant": principal.tenant,
        "agent": principal.agent,
        "key": principal.key,
        "roles": principal.roles,
        "scopes": sorted(principal.scopes),
    }
    if principal.on_behalf_of is not None:
        value["on_behalf_of"] = principal.on_behalf_of
    return Raw(encode(value))


principal_raw: Final = IdentityCache(_principal_raw, 4096)
"""The `principal` member; its text is made once for the object that the verifier hands out."""


def tool_value(tool: Tool) -> dict[str, Any]:
    """The `tool` member."""
    value: dict[str, Any] = {"name": tool.name, "annotations": tool.annotations, "pin": tool.pin}
    if tool.title is not None:
        value["title"] = tool.title
    return value


@lru_cache(maxsize=8)
def _time_text(second: int) -> bytes:
    moment = time.gmtime(second)
    return encode(
        {
            "rfc3339": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
            "weekday": _WEEKDAYS[moment.tm_wday],
            "hour": moment.tm_hour,
            "timezone": "UTC",
        }
    )


def context_value(context: Context, second: int) -> dict[str, Any]:
    """The `context` member, with the time to the second."""
    value: dict[str, Any] = {"client": context.client, "protocol": context.protocol, "time": Raw(_time_text(second))}
    if context.envelope is not None:
        value["envelope"] = context.envelope
    if context.workflow is not None:
        value["workflow"] = context.workflow
    if context.execution is not None:
        value["execution"] = context.execution
    if context.task is not None:
        value["task"] = context.task
    return value


_tools: dict[str, tuple[str, Raw]] = {}


def _tool_raw(tool: Tool) -> Any:
    """The `tool` member of an approved descriptor, made once for each pin."""
    if not tool.pin:
        return tool_value(tool)
    known = _tools.get(tool.pin)
    if known is not None and known[0] == tool.name:
        return known[1]
    if len(_tools) >= _KEPT:
        _tools.clear()
    raw = Raw(encode(tool_value(tool)))
    _tools[tool.pin] = (tool.name, raw)
    return raw


def target_member(method: str, target: str, tool: Tool | None) -> tuple[str, Any] | None:
    """Which member names what is asked for: `tool`, `prompt` or `resource`; None for other methods."""
    if tool is not None:
        return "tool", _tool_raw(tool)
    if method.startswith("prompts/"):
        return "prompt", {"name": target}
    if method.startswith("resources/"):
        return "resource", {"uri": target}
    return None


def _document(
    phase: Phase,
    call: Call,
    labels: Mapping[str, str],
    second: int,
    history: HistoryView | None,
    remaining: Mapping[str, int] | None,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "phase": phase,
        "method": call.method,
        "principal": principal_raw(call.principal),
        "server": {"name": call.server, "labels": labels},
        "context": context_value(call.context, second),
    }
    member = target_member(call.method, call.target, call.tool)
    if member is not None:
        document[member[0]] = member[1]
    if history is not None:
        document["history"] = {
            "taints": history.taints,
            "calls": {"by_tool": history.calls},
            "approvals": history.approvals,
        }
    if remaining is not None:
        document["budget"] = {"remaining": remaining}
    return document


def policy_document(
    call: Call,
    arguments: bytes,
    *,
    labels: Mapping[str, str],
    history: HistoryView | None,
    remaining: Mapping[str, int] | None,
) -> bytes:
    """The input of phase `call`. `arguments` is the canonical text of the call's arguments."""
    document = _document("call", call, labels, int(time.time()), history, remaining)
    if call.responses is not None:
        document["input_responses"] = call.responses
    document["arguments"] = Raw(arguments)
    return encode(document)


def redacted_document(document: bytes, arguments: bytes, replacement: bytes) -> bytes:
    """The same document with other arguments: they are its last member."""
    return document[: len(document) - len(arguments) - 1] + replacement + b"}"


def with_result(document: bytes, result: bytes) -> bytes:
    """The input of phase `result`: that of phase `call` and the result."""
    return document.replace(b'"phase":"call"', b'"phase":"result"', 1)[:-1] + b',"result":' + result + b"}"


def list_document(
    principal: Principal,
    context: Context,
    *,
    server: str,
    labels: Mapping[str, str],
    member: tuple[str, Mapping[str, Any]],
    method: str,
) -> bytes:
    """The input of phase `list` for one tool, prompt or resource."""
    return encode(
        {
            "phase": "list",
            "method": method,
            "principal": principal_raw(principal),
            "server": {"name": server, "labels": labels},
            "context": context_value(Context(client=context.client, protocol=context.protocol), int(time.time())),
            member[0]: member[1],
        }
    )
