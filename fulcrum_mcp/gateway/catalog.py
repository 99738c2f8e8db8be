"""The catalog: what one upstream offers, so that a call can be judged by its tool's descriptor.

Warmed in the background, refreshed when the upstream says so or `ttlMs` has passed, and once, shared and rate-limited,
for a name that is not known. A name that stays unknown is never forwarded. What a client is shown in a live list is
learned, so that what is listed can be called.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from fulcrum_mcp.core.call import Tool
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.param_headers import ParamHeader, param_headers_of
from fulcrum_mcp.gateway.upcall import UpcallError, Via, ask, end_legacy, open_legacy
from fulcrum_mcp.gateway.wire import MODERN_VERSIONS, encode
from fulcrum_mcp.ports import Upstream

__all__ = ["Catalog", "ToolEntry", "descriptor_pin"]

_log = structlog.get_logger("fulcrum.catalog")

_MAX_PAGES: Final = 100
_MAX_ENTRIES: Final = 10_000
"""Of one list; no upstream fills our memory."""
_UNKNOWN_EVERY: Final = 1.0
"""Seconds between refreshes on behalf of unknown names."""
_PATIENCE: Final = 120.0
"""Seconds for all of an upstream's lists; a first start may have to download the server."""
_CALL_PATIENCE: Final = 20.0
"""Seconds that a call of an unknown name waits for the lists."""
_RETRY_AFTER: Final = 5.0
"""Seconds after a failure before the upstream is asked again."""
_MIN_TTL: Final = 30.0
_MAX_TTL_MS: Final = 86_400_000
"""A day: no upstream's word keeps its lists for good."""
_PROBE_EVERY: Final = 600.0
"""Seconds; an upstream of the handshake era may have learned a newer version."""
_PROBES: Final = 2
"""A server may refuse the version of a probe and name another one that we speak."""
_KINDS: Final = (
    ("tools", "tools/list", "tools"),
    ("prompts", "prompts/list", "prompts"),
    ("resources", "resources/list", "resources"),
    ("resources", "resources/templates/list", "resourceTemplates"),
)
_sorted = msgspec.json.Encoder(order="deterministic").encode


def descriptor_pin(descriptor: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a tool's whole descriptor, independent of the order of its members."""
    return hashlib.sha256(_sorted(descriptor)).hexdigest()


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """A tool of an upstream: its descriptor as it is, and what is derived from it once."""

    descriptor: Mapping[str, Any]
    tool: Tool
    param_headers: tuple[ParamHeader, ...]
    structured: bool
    """True if the tool has no outputSchema, so that a denial may carry structuredContent."""


def tool_entry(descriptor: Mapping[str, Any]) -> ToolEntry | None:
    """An entry of a descriptor; None if it has no name."""
    name = descriptor.get("name")
    if not isinstance(name, str):
        return None
    annotations = descriptor.get("annotations")
    title = descriptor.get("title")
    return ToolEntry(
        descriptor=descriptor,
        tool=Tool(
            name=name,
            title=title if isinstance(title, str) else None,
            annotations=annotations if isinstance(annotations, dict) else {},
            pin=descriptor_pin(descriptor),
        ),
        param_headers=param_headers_of(descriptor.get("inputSchema")),
        structured="outputSchema" not in descriptor,
    )


class Catalog:
    """What one upstream offers. `lists` holds the raw descriptors by the result's member name."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.tools: dict[str, ToolEntry] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.capabilities: Mapping[str, Any] = {}
        self.instructions: str | None = None
        self.modern: bool | None = None
        """Whether the upstream speaks a version without sessions; None until it was asked."""
        self.failure: str | None = None
        self.revision = 0
        self._fresh_until = 0.0
        self._unknown_after = 0.0
        self._probe_after = 0.0
        self._asked: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._announced = 0
        self._doubted = False
        self._doubt_after = 0.0
        self._followed = 0

    @property
    def changing(self) -> bool:
        """True from the moment the upstream said that its lists changed until they were read anew."""
        return self._followed != self._announced

    @property
    def ready(self) -> bool:
        """True once the upstream has answered."""
        return self.revision > 0

    @property
    def due(self) -> bool:
        """True if asking the upstream (again) is worth while: it never failed, is being asked, or failed long ago."""
        return self.failure is None or self._refreshing is not None or time.monotonic() > self._fresh_until

    def patience(self, seconds: float, least: float) -> float:
        """How long to wait for this upstream, of `seconds` since it was first asked; `least` if it failed before."""
        if self.ready:
            return seconds
        if self.failure is not None:
            return least
        return seconds if self._asked is None else max(least, seconds - (time.monotonic() - self._asked))

    async def tool(self, name: str, via: Via | None = None) -> ToolEntry | None:
        """The tool of this name. An unknown name refreshes the catalog once (through `via` where given)."""
        entry = self.tools.get(name)
        if entry is not None:
            if time.monotonic() > self._fresh_until and via is None:
                self.refresh_soon()
            return entry
        now = time.monotonic()
        if now < self._unknown_after and self._refreshing is None:
            return None
        self._unknown_after = now + _UNKNOWN_EVERY
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALL_PATIENCE):
                await self.refresh(via)
        return self.tools.get(name)

    def learn(
        self, descriptors: Sequence[Mapping[str, Any]], mine: dict[str, ToolEntry] | None = None
    ) -> list[ToolEntry | None]:
        """Take over the descriptors a client is about to be shown; returns the entry that each is judged by.

        One client's view never changes what others are judged by: what differs from the gateway's own view goes into
        `mine`, which is of one session; without one the gateway's view holds, and is doubted.
        """
        entries: list[ToolEntry | None] = []
        seen: set[object] = set()
        for descriptor in descriptors:
            name = descriptor.get("name")
            if not isinstance(name, str) or name in seen:
                entries.append(None)  # of two tools of one name only the first is shown, and judged
                continue
            seen.add(name)
            entries.append(self._learned(name, descriptor, mine))
        return entries

    def _learned(self, name: str, descriptor: Mapping[str, Any], mine: dict[str, ToolEntry] | None) -> ToolEntry | None:
        text = encode(descriptor)
        for view in (mine, self.tools):
            known = None if view is None else view.get(name)
            if known is not None and encode(known.descriptor) == text:
                if view is self.tools and mine is not None:
                    mine.pop(name, None)
                return known
        entry = tool_entry(descriptor)
        known = self.tools.get(name)
        if known is None:
            if entry is None or len(self.tools) >= _MAX_ENTRIES:
                return None
            self.tools[name] = entry
        elif mine is not None:
            if entry is None or len(mine) >= _MAX_ENTRIES:
                return None
            mine[name] = entry
        else:
            self._doubted = self._doubted or entry is None or entry.tool.pin != known.tool.pin
            return known
        return entry

    async def sure(self) -> bool:
        """Look again if a client was shown something else than we know, once a second; True if it was looked."""
        doubted, self._doubted = self._doubted, False
        now = time.monotonic()
        if not doubted or now < self._doubt_after:
            return False
        self._doubt_after = now + _UNKNOWN_EVERY
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALL_PATIENCE):
                await self.refresh()
        return True

    @property
    def announced(self) -> int:
        """How often the upstream said that its lists changed: what a session learned before holds no longer."""
        return self._announced

    def stale(self) -> None:
        """The upstream said that its lists changed: refresh, shared by all who ask."""
        self._fresh_until = 0.0
        self._announced += 1
        self.refresh_soon()

    def refresh_soon(self) -> None:
        """Refresh in the background unless that is under way."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(None))

    async def refresh(self, via: Via | None = None) -> None:
        """Ask the upstream now; who comes while that is under way waits for the same answer."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(via))
        await asyncio.shield(self._refreshing)
        following = self._under_way()
        if self.changing and following is not None:
            await asyncio.shield(following)

    def _under_way(self) -> "asyncio.Task[None] | None":
        return self._refreshing

    async def _refresh(self, via: Via | None) -> None:
        announced = self._announced
        self._asked = self._asked or time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                await (self._discover() if via is None else self._fetch(via))
            if self.failure is not None:
                _log.info("catalog refreshed again", server=self.name)
            self.failure = None
        except (UpcallError, UpstreamFailed) as fault:
            self._failed(str(fault), via)
        except TimeoutError:
            self._failed(f"upstream {self.name}: no answer within {_PATIENCE:.0f} s; see whether it runs", via)
        finally:
            self._refreshing = None
            self._followed = announced
            if self.changing:  # said while we asked
                self.refresh_soon()

    def _failed(self, reason: str, via: Via | None) -> None:
        if via is not None:
            _log.info("catalog not refreshed through a client's session", server=self.name, reason=reason)
            return
        if self.failure != reason:
            _log.warning("catalog not refreshed", server=self.name, reason=reason)
        self.failure = reason
        self._fresh_until = time.monotonic() + _RETRY_AFTER

    async def _discover(self) -> None:
        if self.modern is not False or time.monotonic() > self._probe_after:
            self._probe_after = time.monotonic() + _PROBE_EVERY
            via = await self._modern_via()
            if via is not None:
                await self._fetch(via)
                return
        try:
            legacy, hello = await open_legacy(self.upstream, _request_id())
        except UpcallError:
            self.modern = self.modern or None  # what was legacy may have become modern: ask again next time
            raise
        self.modern = False
        try:
            self.describe(hello)
            await self._fetch(legacy)
        finally:
            await end_legacy(self.upstream, legacy)

    async def _modern_via(self) -> Via | None:
        """Discover the upstream; None if it speaks no version without sessions."""
        versions: list[str] = list(MODERN_VERSIONS)
        for _ in range(_PROBES):
            via = Via(versions[-1])
            try:
                found = await ask(self.upstream, via, "server/discover", {}, _request_id())
            except UpcallError as fault:
                versions = [version for version in MODERN_VERSIONS if version in fault.supported]
                if not versions:
                    return None
                continue
            supported = found.get("supportedVersions")
            if not isinstance(supported, list) or via.version not in supported:
                return None
            self.modern = True
            self.describe(found)
            return via
        return None

    def describe(self, hello: Mapping[str, Any]) -> None:
        """Take over what the upstream says of itself: capabilities and instructions."""
        capabilities = hello.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        instructions = hello.get("instructions")
        self.instructions = instructions if isinstance(instructions, str) else None

    async def _fetch(self, via: Via) -> None:
        ttl = _MIN_TTL
        lists: dict[str, list[dict[str, Any]]] = {}
        for capability, method, member in _KINDS:
            if self.capabilities and capability not in self.capabilities:
                continue
            if not self.capabilities and capability != "tools":
                continue
            try:
                lists[member], seconds = await self.pages(via, method, member)
            except UpcallError as fault:
                if member == "tools":
                    raise
                _log.info("list not offered", server=self.name, method=method, reason=str(fault))
                continue
            ttl = max(ttl, seconds)
        tools: dict[str, ToolEntry] = {}
        for descriptor in lists.get("tools", ()):
            entry = tool_entry(descriptor)
            if entry is not None and entry.tool.name not in tools:
                tools[entry.tool.name] = entry
        if via.session is not None:
            # One session's view may lack what another has learned.
            tools = {**self.tools, **tools} if via.principal is None else {**tools, **self.tools}
        self.tools = tools
        if via.principal is None:
            self.lists = {**self.lists, **lists}
        self.revision += 1
        self._fresh_until = time.monotonic() + ttl

    async def pages(self, via: Via, method: str, member: str) -> tuple[list[dict[str, Any]], float]:
        """One list as it is seen `via`, and the seconds it is good for. Raises `UpcallError` and `UpstreamFailed`."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        ttl = 0.0
        for _ in range(_MAX_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            result = await ask(self.upstream, via, method, params, _request_id())
            items = result.get(member)
            if isinstance(items, list):
                found.extend(item for item in items if isinstance(item, dict))
            if len(found) > _MAX_ENTRIES:
                _log.warning("list cut off", server=self.name, method=method, entries=_MAX_ENTRIES)
                return found[:_MAX_ENTRIES], ttl
            seconds = result.get("ttlMs")
            if isinstance(seconds, int):
                ttl = max(ttl, min(seconds, _MAX_TTL_MS) / 1000)
            following = result.get("nextCursor")
            if not isinstance(following, str) or following == cursor:
                break
            cursor = following
        return found, ttl


def _request_id() -> str:
    return f"fulcrum-{new_id()}"
