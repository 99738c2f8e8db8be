"""The head of an HTTP request, read once: credentials, MCP's own headers, and what goes on upstream."""

from collections.abc import MutableMapping
from typing import Any, Final

from fulcrum_mcp.api.credentials import FORWARDING
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["Head"]

_LOOPBACK: Final = ("127.", "::1", "::ffff:127.")
_PASSED: Final = frozenset({b"accept", b"traceparent", b"tracestate", b"baggage"})
_OWN: Final = b"x-fulcrum-"
_TOO_LONG: Final = 257
"""Characters of an envelope's name; as many as show that it is too long."""
_MAX_DIGITS: Final = 18


class Head:
    """`values`: all `mcp-*` headers (and last-event-id) by name; `forwarded`: the headers for the upstream.

    `host` and `origin` are None where there is none, and no valid value where there are several. `names` are those of
    the envelope, empty where one comes twice. Raises `Unauthenticated` for a credential that comes twice.
    """

    __slots__ = ("credentials", "forwarded", "host", "json", "length", "names", "origin", "scope", "session", "values")

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.forwarded: list[tuple[bytes, bytes]] = []
        self.values: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}
        self.session: str | None = None
        self.host: str | None = None
        self.origin: str | None = None
        self.json = False
        self.length = 0
        single: dict[bytes, bytes] = {}
        proxied = False
        for pair in scope["headers"]:
            name, value = pair
            if name[:4] == b"mcp-":
                self._mcp(name, value)
            elif name in _PASSED:
                self.forwarded.append(pair)
            elif name in _ONCE:
                single[name] = _TWICE if name in single else value
            elif name in FORWARDING:
                proxied = True
            elif name[:10] == _OWN:
                key = name[10:].decode("latin-1")
                self.names[key] = "" if key in self.names else value.decode("latin-1").strip(" \t")[:_TOO_LONG]
        self._single(single)
        client = scope.get("client")
        self.credentials = Credentials(
            _credential(single, b"authorization"),
            _credential(single, b"x-api-key"),
            forwarded=proxied,
            loopback=client is not None and str(client[0]).startswith(_LOOPBACK),
        )

    def _mcp(self, name: bytes, value: bytes) -> None:
        if b"_" in name:
            return  # CGI and WSGI read `mcp-session_id` as the header of the proper name
        value = value.strip(b" \t")
        text = value.decode("latin-1")
        if name == b"mcp-session-id":
            self.session = text if self.session is None else ""
            return
        self.values.setdefault(name.decode("latin-1"), []).append(text)
        self.forwarded.append((name, value))

    def _single(self, single: dict[bytes, bytes]) -> None:
        host, origin = single.get(b"host"), single.get(b"origin")
        if host is not None:
            self.host = host.decode("latin-1")
        if origin is not None:
            self.origin = origin.decode("latin-1")
        media = single.get(b"content-type", b"")
        self.json = media == b"application/json" or media.partition(b";")[0].strip().lower() == b"application/json"
        length = single.get(b"content-length", b"0")
        self.length = int(length[:_MAX_DIGITS]) if length.isdigit() else 0
        last = single.get(b"last-event-id")
        if last is not None:
            self.values["last-event-id"] = [last.decode("latin-1")]
            self.forwarded.append((b"last-event-id", last))


_ONCE: Final = frozenset(
    {b"host", b"origin", b"content-type", b"content-length", b"authorization", b"x-api-key", b"last-event-id"}
)
_TWICE: Final = b"\x00twice"
"""Stands for a header that came more than once: no valid value of any."""


def _credential(single: dict[bytes, bytes], name: bytes) -> str | None:
    value = single.get(name)
    if value == _TWICE:
        shown = name.decode().title()
        msg = f"{shown} comes twice; send it once"
        raise Unauthenticated(msg)
    return None if value is None else value.decode("latin-1")
