"""The lists of the merged face: all upstreams' tools, prompts, resources and templates, filtered by the list law."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.listing import LIST_METHODS
from fulcrum_mcp.gateway.naming import Offer, join_name, shown_uri, uri_owners
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.upcall import UpcallError, Via

__all__ = [
    "BadCursor",
    "catalogs_of",
    "instructions_of",
    "list_in_session",
    "merged_capabilities",
    "merged_list",
    "offers_of",
    "ready_catalogs",
]

PAGE: Final = 500
_PATIENCE: Final = 10.0
_FAILING: Final = 1.0
_OFFERED: Final = ("tools", "prompts", "resources", "completions", "logging")


class BadCursor(Exception):
    """A cursor that was not made here."""


def catalogs_of(exchanges: Mapping[str, Exchange]) -> list[Catalog]:
    """The catalogs in the order of the configuration."""
    return [exchange.catalog for exchange in exchanges.values()]


async def ready_catalogs(exchanges: Mapping[str, Exchange]) -> list[Catalog]:
    """Those that have answered; waits a little for the others, less for those that failed before or just changed."""
    catalogs = catalogs_of(exchanges)
    absent = [catalog for catalog in catalogs if not catalog.ready and catalog.due]
    changing = [catalog for catalog in catalogs if catalog.ready and catalog.changing]
    if absent or changing:
        patience = max((catalog.patience(_PATIENCE, _FAILING) for catalog in absent), default=_FAILING)
        _, silent = await asyncio.wait(
            [asyncio.ensure_future(catalog.refresh()) for catalog in (*absent, *changing)], timeout=patience
        )
        for task in silent:
            task.cancel()
    return [catalog for catalog in catalogs if catalog.ready]


def merged_capabilities(offered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all upstreams together offer, limited to what the merged face delivers."""
    merged: dict[str, Any] = {}
    for capabilities in offered:
        for name in _OFFERED:
            value = capabilities.get(name)
            if isinstance(value, dict):
                mine = merged.setdefault(name, {})
                for key, flag in value.items():
                    mine[key] = flag if not isinstance(mine.get(key), bool) else bool(mine[key] or flag)
    return merged


def instructions_of(catalogs: Sequence[Catalog], missing: Sequence[str]) -> str:
    """How to read the names, each upstream's own instructions, and which upstreams are not there."""
    parts = ["Tools and prompts are named <server>__<name>. Calls are governed by policy and recorded."]
    parts.extend(f"{catalog.name}: {catalog.instructions}" for catalog in catalogs if catalog.instructions)
    if missing:
        parts.append(f"Not available now: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _offset(cursor: object) -> int:
    if cursor is None:
        return 0
    try:
        kind, _, number = base64.urlsafe_b64decode(str(cursor)).decode().partition(":")
        offset = int(number)
    except ValueError:
        raise BadCursor from None
    if kind != "f" or offset < 0:
        raise BadCursor
    return offset


@dataclass(frozen=True, slots=True)
class _SessionOffer:
    """What a server offers in one session: it may depend on what that client can do."""

    name: str
    lists: Mapping[str, Sequence[Mapping[str, Any]]]
    capabilities: Mapping[str, Any]


def offers_of(catalogs: Sequence[Catalog], session: Session | None) -> Sequence[Offer]:
    """What is offered to this client."""
    if session is None:
        return catalogs
    lists = session.lists
    return [
        _SessionOffer(catalog.name, {**catalog.lists, **lists.get(catalog.name, {})}, catalog.capabilities)
        for catalog in catalogs
    ]


async def list_in_session(catalogs: Sequence[Catalog], session: Session, principal: Principal, method: str) -> None:
    """Ask each server for one of its lists in the client's own session; who does not answer is taken at its catalog."""
    member, _ = LIST_METHODS[method]
    capability = "resources" if member == "resourceTemplates" else member

    async def ask(catalog: Catalog) -> None:
        peer = session.peers[catalog.name]
        try:
            async with asyncio.timeout(_PATIENCE):
                found, _ = await catalog.pages(Via(peer.version, peer.session, principal), method, member)
        except (UpcallError, UpstreamFailed, TimeoutError):
            return
        known = catalog.lists.get(member)  # one copy for all sessions that show the same
        session.lists.setdefault(catalog.name, {})[member] = known if known == found and known is not None else found

    asked = [item for item in catalogs if item.name in session.peers and capability in item.capabilities]
    await asyncio.gather(*(ask(catalog) for catalog in asked))


async def merged_list(
    exchanges: Mapping[str, Exchange],
    catalogs: Sequence[Catalog],
    pending: Pending,
    cursor: object,
    session: Session | None = None,
) -> dict[str, Any]:
    """The result of a list method, one page.

    Raises:
        BadCursor: the cursor is not ours.
    """
    member, kind = LIST_METHODS[pending.method]
    offset = _offset(cursor)
    entries: list[Any] = []
    offers = offers_of(catalogs, session)
    owners = {} if kind != "resource" else uri_owners(offers, member, _uri_key(member))
    for catalog, offer in zip(catalogs, offers, strict=True):
        mine = None if session is None else session.learned(catalog.name, catalog.announced)
        there = replace(pending, server=catalog.name, mine=mine)
        responder = exchanges[catalog.name].responder
        shown = await responder.visible(there, catalog, kind, offer.lists.get(member, ()))
        entries.extend(_renamed(catalog.name, item, member, owners) for item in shown)
    result: dict[str, Any] = {member: entries[offset : offset + PAGE]}
    if offset + PAGE < len(entries):
        result["nextCursor"] = base64.urlsafe_b64encode(f"f:{offset + PAGE}".encode()).decode()
    if pending.modern:
        result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    return result


def _uri_key(member: str) -> str:
    return "uri" if member == "resources" else "uriTemplate"


def _renamed(server: str, item: Mapping[str, Any], member: str, owners: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    if member in ("tools", "prompts"):
        return {**item, "name": join_name(server, item["name"])}
    key = _uri_key(member)
    return {**item, key: shown_uri(server, item[key], owners)}
