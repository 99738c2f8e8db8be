"""Upstreams as they are configured, for people: never with a value of a header or an environment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fulcrum_mcp.control.access import require_of_operator
from fulcrum_mcp.core.call import Principal

__all__ = ["ServerView", "Servers", "server_document"]


@dataclass(frozen=True, slots=True)
class ServerView:
    """One upstream. `shown` is its command line or URL as written, `${VAR}` and all."""

    name: str
    transport: str
    shown: str
    origin: str
    headers: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class Servers:
    """The use cases; changing servers over the API comes later, and never for commands.

    `owner`: the operator's tenant. Commands, addresses and paths are of the host that all tenants share.
    """

    def __init__(self, configured: Callable[[], Sequence[ServerView]], owner: str = "") -> None:
        self._configured = configured
        self._owner = owner

    def list(self, principal: Principal) -> Sequence[ServerView]:
        """In the order of the file. Raises `Unprivileged`."""
        require_of_operator(principal, "admin", self._owner)
        return self._configured()


def server_document(view: ServerView) -> dict[str, Any]:
    """A server for people and programs; of headers and environment only the names."""
    return {
        "name": view.name,
        "transport": view.transport,
        "target": view.shown,
        "configured_at": view.origin,
        "headers": list(view.headers),
        "env": list(view.env),
        "labels": dict(view.labels),
    }
