"""Which headers pass between a caller and an upstream, in either direction.

Up: what the operator says wins; of a caller's headers only MCP's own, the accepted forms and the trace pass.
Down: nothing of the connection, no cookie, no challenge, nothing that a proxy in front of us would obey.
"""

import re
from collections.abc import Mapping
from typing import Final

from fulcrum_mcp import __version__

from .fault import Fault
from .transport import Headers

__all__ = ["Outgoing", "incoming"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BROKEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_PASSED: Final = frozenset(b"accept accept-language baggage last-event-id traceparent tracestate".split())
_NOT_PASSED_ON: Final = frozenset(
    b"alt-svc authentication-info clear-site-data connection content-encoding content-length date keep-alive "
    b"proxy-authenticate proxy-authentication-info proxy-connection server set-cookie set-cookie2 "
    b"strict-transport-security te trailer transfer-encoding upgrade via www-authenticate x-accel-redirect "
    b"x-sendfile".split()
)
_ONCE: Final = frozenset((b"content-type", b"location", b"mcp-session-id", b"retry-after"))
_REMEMBERED: Final = 512
_SHORT: Final = 64
"""Bytes of a name that is worth remembering."""


class Outgoing:
    """Header policy of one upstream; remembers its verdict on names so that the usual ones cost a look-up."""

    __slots__ = ("_default_accept", "_known", "_own", "static")

    def __init__(self, operator: Mapping[str, str]) -> None:
        own = {name.lower().encode("ascii"): value.strip(" \t").encode("latin-1") for name, value in operator.items()}
        always = {b"user-agent": b"fulcrum/" + __version__.encode("ascii"), **own, b"accept-encoding": b"identity"}
        for said_by_us in (b"accept", b"content-type"):
            always.pop(said_by_us, None)
        self.static: Headers = list(always.items())
        self._own = frozenset(own)
        self._default_accept = own.get(b"accept", b"application/json, text/event-stream")
        self._known: dict[bytes, bool] = {}

    def select(self, headers: Headers, *, body: bool) -> Headers:
        """What is sent besides `static`. Raises `Fault` for a name or value that would break the message."""
        known = self._known
        chosen: Headers = [(b"content-type", b"application/json")] if body else []
        accept = True
        for header in headers:
            name, value = header
            passes = known.get(name)
            if passes is None:
                passes = self._judge(name)
            if not passes:
                continue
            if _BROKEN(value):
                raise Fault(f"header {name.decode()} holds a line break or control character", sent=False)
            if name == b"accept":
                accept = False
            chosen.append(header)
        if accept:
            chosen.append((b"accept", self._default_accept))
        return chosen

    def _judge(self, name: bytes) -> bool:
        if not _TOKEN.fullmatch(name):
            raise Fault("a header's name holds a character that none may hold", sent=False)
        low = name.lower()
        passes = (low in _PASSED or low.startswith(b"mcp-")) and low not in self._own
        if len(self._known) < _REMEMBERED and len(name) <= _SHORT:
            self._known[name] = passes
        return passes


_names: dict[bytes, str] = {}


def incoming(headers: Headers) -> dict[str, str]:
    """What a caller may see of an answer's headers. Raises `Fault` when a single one comes twice and differs."""
    shown: dict[str, str] = {}
    for name, value in headers:
        if name in _NOT_PASSED_ON:
            continue
        key = _names.get(name) or _remember(name)
        text = value.decode("latin-1")
        before = shown.get(key)
        if before is None:
            shown[key] = text
        elif name not in _ONCE:
            shown[key] = f"{before}, {text}"
        elif before != text:
            raise Fault(f"its answer has two different headers {key}")
    return shown


def _remember(name: bytes) -> str:
    key = name.decode("latin-1")
    if len(_names) < _REMEMBERED and len(name) <= _SHORT:
        _names[name] = key
    return key
