"""The list law: what a principal cannot see it cannot call, and both questions have one answer.

A tool is shown if its list verdict is not deny; a call needs the same verdict. Verdicts are cached per principal and
snapshot.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from fulcrum_mcp.core.call import Context, Principal, Tool
from fulcrum_mcp.core.decision import combine
from fulcrum_mcp.gateway.policy_input import list_document, tool_value
from fulcrum_mcp.gateway.snapshot import Snapshot
from fulcrum_mcp.gateway.wire import encode

__all__ = ["LIST_METHODS", "ListLaw"]

LIST_METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "tools/list": ("tools", "tool"),
    "prompts/list": ("prompts", "prompt"),
    "resources/list": ("resources", "resource"),
    "resources/templates/list": ("resourceTemplates", "resource"),
}
"""Method -> the result's member that holds the list, and the kind of its entries."""

_METHOD_OF_KIND: Final = {"tool": "tools/list", "prompt": "prompts/list", "resource": "resources/list"}
_CACHE_SIZE: Final = 65_536


class ListLaw:
    """Answers whether a principal may see a tool, prompt or resource."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Any, ...], bool] = {}

    async def tool(self, snapshot: Snapshot, principal: Principal, context: Context, server: str, tool: Tool) -> bool:
        """True if this tool is listed for this principal."""
        key = self._key(snapshot, principal, context, server, "tool", tool.name, tool.pin)
        known = self._cache.get(key)
        if known is None:
            known = await self._ask(snapshot, principal, context, server, ("tool", tool_value(tool)), key)
        return known

    async def named(
        self, snapshot: Snapshot, principal: Principal, context: Context, server: str, kind: str, name: str
    ) -> bool:
        """True if this prompt (kind `prompt`) or resource (kind `resource`, by URI) is listed for this principal."""
        key = self._key(snapshot, principal, context, server, kind, name, "")
        known = self._cache.get(key)
        if known is None:
            member = (kind, {"uri": name} if kind == "resource" else {"name": name})
            known = await self._ask(snapshot, principal, context, server, member, key)
        return known

    def _key(
        self,
        snapshot: Snapshot,
        principal: Principal,
        context: Context,
        server: str,
        kind: str,
        name: str,
        pin: str,
    ) -> tuple[Any, ...]:
        moment = int(time.time()) if snapshot.engine.info.list_reads_time else 0
        delegation = None if principal.on_behalf_of is None else encode(principal.on_behalf_of)
        return (
            snapshot.revision,
            principal.tenant,
            principal.agent,
            principal.key,
            principal.roles,
            principal.scopes,
            delegation,
            context.client,
            context.protocol,
            server,
            kind,
            name,
            pin,
            moment,
        )

    async def _ask(
        self,
        snapshot: Snapshot,
        principal: Principal,
        context: Context,
        server: str,
        member: tuple[str, Mapping[str, Any]],
        key: tuple[Any, ...],
    ) -> bool:
        document = list_document(
            principal,
            context,
            server=server,
            labels=snapshot.labels.get(server, {}),
            member=member,
            method=_METHOD_OF_KIND[member[0]],
        )
        if len(document) > snapshot.limits.max_input:
            return False
        verdicts = await snapshot.engine.evaluate("list", document)
        listed = combine(verdicts, "list").effect != "deny"
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        self._cache[key] = listed
        return listed
