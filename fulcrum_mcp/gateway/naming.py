"""Names on the merged face: `<server>__<tool>`, resources by URI, and ids that are unique among several upstreams."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, Raw

from fulcrum_mcp.gateway.relay import Rename
from fulcrum_mcp.gateway.wire import Peek, encode
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["Offer", "join_name", "renamer", "resource_server", "shown_uri", "split_id", "split_name"]

SEPARATOR: Final = "__"


class Offer(Protocol):
    """What one server offers, to everybody (its catalog) or to one session."""

    @property
    def name(self) -> str:
        """The server's name."""
        ...

    @property
    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Descriptors by the result's member name."""
        ...

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What the server says it can do."""
        ...


_WILD: Final = ("{+", "{#", "{/")
_MAX_URI: Final = 2048
_MAX_TEMPLATE: Final = 2048
_MAX_PARTS: Final = 32
_MAX_TEMPLATES: Final = 256
"""Templates come from upstreams: what is longer, or beyond so many of a server, fits nothing."""


def join_name(server: str, name: str) -> str:
    """A tool's or prompt's name on the merged face."""
    return f"{server}{SEPARATOR}{name}"


def split_name(name: object) -> tuple[str, str] | None:
    """(server, name) of a name on the merged face; servers' names hold no `__`."""
    if not isinstance(name, str):
        return None
    server, separator, rest = name.partition(SEPARATOR)
    return (server, rest) if separator and rest else None


def split_id(value: object) -> tuple[str, Any] | None:
    """(server, the server's own id) of an id that `renamer` made."""
    if not isinstance(value, str):
        return None
    server, separator, text = value.partition(":")
    if not separator:
        return None
    try:
        return server, msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return None


def renamer(server: str) -> Rename:
    """Puts the server's name before event ids and before the ids of its requests to the client."""

    def rename(event: ServerSentEvent, peek: Peek | None) -> ServerSentEvent:
        if event.id is not None:
            event = replace(event, id=f"{server}:{event.id}")
        if peek is None or peek.method is UNSET:
            return event
        if peek.id is not UNSET:
            members = msgspec.json.decode(event.data, type=dict[str, Raw])
            members["id"] = Raw(encode(f"{server}:{bytes(peek.id).decode()}"))
            return replace(event, data=encode(members))
        if peek.method == "notifications/cancelled":
            message = msgspec.json.decode(event.data)
            params = message.get("params")
            if isinstance(params, dict) and "requestId" in params:
                params["requestId"] = f"{server}:{encode(params['requestId']).decode()}"
                return replace(event, data=encode(message))
        return event

    return rename


def shown_uri(server: str, uri: str, owners: Mapping[str, Sequence[str]]) -> str:
    """A resource's URI on the merged face: its own, or `<server>+<uri>` where several upstreams have the same."""
    return uri if len(owners.get(uri, ())) <= 1 else f"{server}+{uri}"


def uri_owners(catalogs: Iterable[Offer], member: str, key: str) -> dict[str, list[str]]:
    """Which servers list each URI (or URI template)."""
    owners: dict[str, list[str]] = {}
    for catalog in catalogs:
        for item in catalog.lists.get(member, ()):
            uri = item.get(key)
            if isinstance(uri, str) and catalog.name not in owners.setdefault(uri, []):
                owners[uri].append(catalog.name)
    return owners


@lru_cache(maxsize=1024)
def _template_parts(template: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"(\{[^{}]*\})", template) if part)


def _expands_to(template: str, uri: str) -> bool:
    """If a URI template (RFC 6570) can roughly become this: `{+x}`, `{#x}` and `{/x}` any text, others no slash.

    Templates come from upstreams and URIs from clients, so this takes time in proportion to both, whatever they are.
    """
    if len(uri) > _MAX_URI or len(template) > _MAX_TEMPLATE:
        return False
    parts = _template_parts(template)
    if len(parts) > _MAX_PARTS:
        return False
    ends = {0}
    for part in parts:
        if not part.endswith("}") or not part.startswith("{"):
            ends = {end + len(part) for end in ends if uri.startswith(part, end)}
        elif part.startswith(_WILD):
            ends = set(range(min(ends), len(uri) + 1))
        else:
            ends = _no_slash(uri, ends)
        if not ends:
            return False
    return len(uri) in ends


def _no_slash(uri: str, starts: set[int]) -> set[int]:
    """Where text without a slash that begins at one of these places can end."""
    ends: set[int] = set()
    reach = -1
    for start in sorted(starts):
        if start > reach:
            slash = uri.find("/", start)
            reach = len(uri) if slash < 0 else slash
            ends.update(range(start, reach + 1))
    return ends


def resource_server(catalogs: Sequence[Offer], uri: str) -> tuple[str, str] | None:
    """(server, the server's own URI) for a URI on the merged face; None if none or several could be meant."""
    owners = uri_owners(catalogs, "resources", "uri").get(uri, [])
    if len(owners) == 1:
        return owners[0], uri
    prefix, separator, rest = uri.partition("+")
    if separator and any(catalog.name == prefix for catalog in catalogs):
        return prefix, rest
    if owners:
        return None
    fitting = [
        catalog.name
        for catalog in catalogs
        if any(
            isinstance(item.get("uriTemplate"), str) and _expands_to(item["uriTemplate"], uri)
            for item in catalog.lists.get("resourceTemplates", ())[:_MAX_TEMPLATES]
        )
    ]
    if len(fitting) == 1:
        return fitting[0], uri
    able = [catalog.name for catalog in catalogs if "resources" in catalog.capabilities]
    return (able[0], uri) if not fitting and len(able) == 1 else None
