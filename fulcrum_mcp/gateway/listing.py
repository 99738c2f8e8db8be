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
_SHARE: Final = 8_192
"""Verdicts kept for one principal."""
_SHORT: Final = 256
"""Characters of a name that counts once."""


class ListLaw:
    """Answers whether a principal may see a tool, prompt or resource."""

    def __init__(self) -> None:
        self._cache: dict[int, tuple[Principal, dict[tuple[Any, ...], bool]]] = {}
        self._size = 0

    async def tool(self, snapshot: Snapshot, principal: Principal, context: Context, server: str, tool: Tool) -> bool:
        """True if this tool is listed for this principal."""
        cache = self._of(principal)
        key = (snapshot.revision, server, tool.name, tool.pin, context.client, context.protocol, _moment(snapshot))
        known = cache.get(key)
        if known is None:
            known = await self._ask(snapshot, principal, context, server, ("tool", tool_value(tool)))
            self._keep(cache, key, len(tool.name), listed=known)
        return known

    async def named(
        self, snapshot: Snapshot, principal: Principal, context: Context, server: str, kind: str, name: str
    ) -> bool:
        """True if this prompt (kind `prompt`) or resource (kind `resource`, by URI) is listed for this principal."""
        cache = self._of(principal)
        key = (snapshot.revision, server, kind, name, None, context.client, context.protocol, _moment(snapshot))
        known = cache.get(key)
        if known is None:
            member = (kind, {"uri": name} if kind == "resource" else {"name": name})
            known = await self._ask(snapshot, principal, context, server, member)
            self._keep(cache, key, len(name), listed=known)
        return known

    def _of(self, principal: Principal) -> dict[tuple[Any, ...], bool]:
        """What is known of one principal. The verifier hands out the same object as long as the credential stands."""
        known = self._cache.get(id(principal))
        if known is not None and known[0] is principal:
            return known[1]
        self._size += 1
        if self._size > _CACHE_SIZE:
            self._cache.clear()
            self._size = 0
        cache: dict[tuple[Any, ...], bool] = {}
        self._cache[id(principal)] = (principal, cache)
        return cache

    def _keep(self, cache: dict[tuple[Any, ...], bool], key: tuple[Any, ...], length: int, *, listed: bool) -> None:
        """Names come from clients: a long one counts for several, and no principal's fill the cache of all."""
        if len(cache) >= _SHARE:
            self._size -= min(len(cache), self._size)
            cache.clear()
        self._size += 1 + length // _SHORT
        if self._size > _CACHE_SIZE:
            self._cache.clear()
            self._size = 0
        cache[key] = listed

    async def _ask(
        self,
        snapshot: Snapshot,
        principal: Principal,
        context: Context,
        server: str,
        member: tuple[str, Mapping[str, Any]],
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
        return combine(verdicts, "list").effect != "deny"


def _moment(snapshot: Snapshot) -> int:
    """Verdicts that read the time are kept for a second."""
    return int(time.time()) if snapshot.engine.info.list_reads_time else 0
