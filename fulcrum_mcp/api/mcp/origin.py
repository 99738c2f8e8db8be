"""Host and Origin: what a browser that was lured here would send is refused (DNS rebinding, MCP security practices)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["OriginPolicy"]

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_LONGEST: Final = 300
"""Characters; a name of DNS has at most 253. Nothing longer is remembered."""
_PORTS: Final = {"http": "80", "https": "443"}


class OriginPolicy:
    """Which Host and Origin values are served.

    Bound to loopback: loopback names and `allowed_hosts`. Bound elsewhere: the bind's own name too; bound to every
    address without `allowed_hosts`: any name (keys are needed there anyway). An Origin must be the same host and port,
    loopback on loopback, or one of `allowed_origins`.
    """

    def __init__(self, bound_host: str, allowed_hosts: Sequence[str] = (), allowed_origins: Sequence[str] = ()) -> None:
        own = f"[{bound_host}]" if ":" in bound_host else bound_host
        self._any = bound_host in _EVERYWHERE and not allowed_hosts
        self._hosts = _LOOPBACK | {own.lower()} | {_name(host) for host in allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}
        self._known = lru_cache(maxsize=1024)(self._judge)

    def refusal(self, host: str | None, origin: str | None) -> str | None:
        """Why a request is refused, or None. `host` None: there was none, or more than one."""
        if len(host or "") > _LONGEST or len(origin or "") > _LONGEST:
            return "Host or Origin is too long to be served here"
        return self._known(host, origin)

    def _judge(self, host: str | None, origin: str | None) -> str | None:
        found = _HOST.match(host or "")
        if found is None or not (self._any or found[1].lower() in self._hosts):
            return "Host not served here; see allowed_hosts"
        if origin is None or origin.lower() in self._origins:
            return None
        web = _ORIGIN.match(origin.lower())
        if web is not None:
            port = _PORTS[web[1]]
            if web[2] == found[1].lower() and (web[3] or port) == (found[2] or port):
                return None
            if web[2] in _LOOPBACK and found[1].lower() in _LOOPBACK:
                return None
        return "Origin not served here; see allowed_origins"


def _name(host: str) -> str:
    found = _HOST.match(host.lower())
    return found[1] if found is not None else host.lower()
