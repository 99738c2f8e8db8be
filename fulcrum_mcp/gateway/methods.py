"""MCP's methods as the gateway sees them: which are governed, which just pass, which must be asked for."""

from typing import Final

__all__ = ["GOVERNED", "KNOWN", "TARGET_MEMBER"]

TARGET_MEMBER: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Governed method -> the member of its params that names what is asked for."""

GOVERNED: Final = frozenset(TARGET_MEMBER)

KNOWN: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "logging/setLevel",
        "tasks/get",
        "tasks/update",
        "tasks/cancel",
        "tasks/result",
        "tasks/list",
    }
)
"""Other methods of the specification: they pass. What is neither here nor governed passes only where policy allows."""
