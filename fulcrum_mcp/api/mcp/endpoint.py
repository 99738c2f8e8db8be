"""The MCP endpoint: an ASGI application beside Starlette, mounted at `/mcp` and `/servers/<name>/mcp`.

One strict parse; who calls; which era; then the gateway. What fails before a decision gets the protocol's own error.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import structlog

from fulcrum_mcp.api.mcp.head import Head
from fulcrum_mcp.api.mcp.incoming import incoming_of
from fulcrum_mcp.api.mcp.ladder import Era, classify
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.mcp.routing import Routing
from fulcrum_mcp.api.mcp.standing import Standing
from fulcrum_mcp.api.mcp.writer import Receive, Send, send_answer, send_body, watch
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import allows
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.errors import FulcrumError, Unauthenticated, Unavailable
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.sessions import Session, Sessions
from fulcrum_mcp.gateway.wire import MODERN_VERSIONS, Message, WireError, error_message, parse_message
from fulcrum_mcp.ports import IdentityVerifier

__all__ = ["Bounds", "Face", "McpEndpoint"]

_log = structlog.get_logger("fulcrum.mcp")

_INVALID_REQUEST: Final = -32600
_INTERNAL: Final = -32603
_NOT_JSON: Final = "Unsupported Media Type: content-type must be application/json"
_JSON_HEADERS: Final = [(b"content-type", b"application/json")]
_LARGE: Final = 64 << 10
"""Bytes of a message that takes milliseconds to read."""
_PACE: Final = 2.0
"""How many times as long as it took to read a large message the next one waits."""


class Face(Protocol):
    """What stands behind a path: one upstream, or all of them."""

    async def post(self, incoming: Incoming) -> Answer:
        """A message."""
        ...

    async def get(self, incoming: Incoming) -> Answer:
        """A stream to listen on (handshake era)."""
        ...

    async def delete(self, incoming: Incoming) -> Answer:
        """The end of a session (handshake era)."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What keeps one client from hurting the others: bytes and depth of a message, requests at a time."""

    max_body: int = 4 * 1024 * 1024
    max_depth: int = 128
    in_flight: int = 1000
    in_flight_per_key: int = 200
    streams_per_key: int = 64
    """Streams that clients listen on (GET): each holds a connection to its upstream."""


class McpEndpoint:
    """ASGI: give it HTTP scopes whose path is one of its own (`serves`)."""

    def __init__(
        self,
        faces: Mapping[str, Face],
        sessions: Sessions,
        identity: IdentityVerifier,
        origin: OriginPolicy,
        *,
        bounds: Bounds,
        challenge: Callable[[bool], str],
        routing: Routing | None = None,
        end: Callable[[Principal, Reason], object] = lambda _principal, _why: None,
    ) -> None:
        """`routing`: where there are several workers. `end`: see `Standing`."""
        self._routing = routing
        self.standing = Standing(identity, end)
        self._faces = faces
        self._sessions = sessions
        self._identity = identity
        self._origin = origin
        self._max_body = bounds.max_body
        self._bounds = bounds
        self._challenge = challenge
        self._open: Counter[str] = Counter()
        self._total = 0
        self._parsing = asyncio.Lock()
        self._lines: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self._total

    def serves(self, path: str) -> bool:
        """True if this path is one of the MCP faces (known or not)."""
        return path == "/mcp" or (path.startswith("/servers/") and path.endswith("/mcp"))

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            head = Head(scope)
            refusal = self._origin.refusal(head.host, head.origin)
            if refusal is not None:
                await self._refuse(send, 403, refusal)
                return
            principal = await self._identity.verify(head.credentials)
            if not allows(principal, "tool:call"):
                await self._refuse(send, 403, "this key lacks the scope tool:call")
                return
            face = self._faces.get(scope["path"])
            if face is None:
                await self._refuse(send, 404, f"no MCP server at {scope['path'][:100]}")
                return
            await self._serve(scope["method"], face, head, principal, receive, send)
        except Unauthenticated as fault:
            presented = any(name in (b"authorization", b"x-api-key") for name, _ in scope["headers"])
            told = self._challenge(presented).encode()
            await self._refuse(send, 401, str(fault), ((b"www-authenticate", told),))
        except WireError as fault:
            text = error_message(fault.request_id, fault.code, fault.message, fault.data)
            await send_body(send, 400, text, _JSON_HEADERS)
        except Unavailable as fault:
            await self._refuse(send, 503, str(fault), ((b"retry-after", b"1"),))
        except FulcrumError as fault:
            await self._refuse(send, 400, str(fault))
        except _Gone:
            return
        except Exception:  # noqa: BLE001 - the last resort: no traceback ever reaches a client
            error_id = new_id()
            _log.exception("request failed", error_id=error_id)
            text = error_message(None, _INTERNAL, f"internal error {error_id}; the gateway's log knows it")
            await send_body(send, 500, text, _JSON_HEADERS)

    @staticmethod
    async def _refuse(send: Send, status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        await send_body(send, status, error_message(None, _INVALID_REQUEST, text), [*_JSON_HEADERS, *headers])

    async def _serve(
        self, verb: str, face: Face, head: Head, principal: Principal, receive: Receive, send: Send
    ) -> None:
        if verb == "POST":
            if not head.json:
                await self._refuse(send, 415, _NOT_JSON)
                return
        elif verb not in ("GET", "DELETE"):
            await self._refuse(send, 405, f"{verb} is not allowed", ((b"allow", b"GET, POST, DELETE"),))
            return
        # Whoever keeps a place is counted from here on: also a body that comes slowly, and a stream that never ends.
        bounds, listens = self._bounds, verb == "GET"
        key = f"{listens}/{principal.tenant}/{principal.key}"
        most = bounds.streams_per_key if listens else bounds.in_flight_per_key
        if self._open[key] >= most or (self._total >= bounds.in_flight and not listens):
            await self._refuse(send, 429, "too many requests at a time", ((b"retry-after", b"1"),))
            return
        self._total += not listens
        self._open[key] += 1
        try:
            if verb == "POST":
                await self._message(face, head, principal, receive, send)
            elif listens:
                with self.standing.listening(head.credentials, principal):
                    await self._session_verb(verb, face, head, principal, receive, send)
            else:
                await self._session_verb(verb, face, head, principal, receive, send)
        finally:
            self._total -= not listens
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    async def _message(self, face: Face, head: Head, principal: Principal, receive: Receive, send: Send) -> None:
        body = await self._body(head, receive)
        if body is None:
            await self._refuse(send, 413, f"the message is larger than {self._max_body} bytes")
            return
        message = await self._parsed(body, principal)
        era = classify(message, head.values)
        if self._routing is not None and await self._routing.handed_over(
            head, principal, message, body, receive, send, modern=era.modern
        ):
            return
        if message.method == "subscriptions/listen":
            with self.standing.listening(head.credentials, principal):
                await self._post(face, head, principal, message, era, receive, send)
        else:
            await self._post(face, head, principal, message, era, receive, send)

    async def _parsed(self, body: bytes, principal: Principal) -> Message:
        """The message; large ones one after the other, with time between them, so that many do not hold up all.

        Of each key one waits in the common line, so that nobody waits for more than one of each other's. Raises
        `WireError`.
        """
        if len(body) <= _LARGE:
            return parse_message(body, self._bounds.max_depth)
        async with self._lines.setdefault((principal.tenant, principal.key), asyncio.Lock()):
            await self._parsing.acquire()
            began = time.perf_counter()
            try:
                return parse_message(body, self._bounds.max_depth)
            finally:  # what follows takes about as long again, and the rest of the loop has its turn
                pause = _PACE * (time.perf_counter() - began)
                asyncio.get_running_loop().call_later(pause, self._parsing.release)

    async def _body(self, head: Head, receive: Receive) -> bytes | None:
        """The request's body; None if it is too large."""
        if head.length > self._max_body:
            return None
        event = await receive()
        body: bytes = event.get("body", b"")
        if event.get("more_body", False):
            parts = [body]
            size = len(body)
            while event.get("more_body", False):
                event = await receive()
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                if size > self._max_body:
                    return None
            body = b"".join(parts)
        if event["type"] == "http.disconnect":
            raise _Gone
        return None if len(body) > self._max_body else body

    def _session(self, head: Head, principal: Principal, era: Era) -> Session | None:
        """The session that a request of the handshake era names."""
        if era.modern or head.session is None:
            return None
        session = self._sessions.find(head.session, principal)
        if session is None:
            raise _UnknownSession
        return session

    async def _post(
        self,
        face: Face,
        head: Head,
        principal: Principal,
        message: Message,
        era: Era,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            session = self._session(head, principal, era)
        except _UnknownSession:
            await send_body(send, 404, error_message(message.id, _INVALID_REQUEST, "Session not found"), _JSON_HEADERS)
            return
        incoming = incoming_of(
            "POST",
            principal,
            message,
            era,
            headers=head.forwarded,
            values=head.values,
            names=head.names,
            session=session,
        )
        # A client of the handshake era that goes away does not cancel: its request is answered on another stream.
        watcher = watch(receive) if era.modern else None
        try:
            answer = await face.post(incoming)
            await send_answer(send, answer)
        except asyncio.CancelledError:
            if watcher is None or not watcher.gone:
                raise
        finally:
            if watcher is not None:
                watcher.stop()

    async def _session_verb(
        self, verb: str, face: Face, head: Head, principal: Principal, receive: Receive, send: Send
    ) -> None:
        versions = head.values.get("mcp-protocol-version", ())
        if versions and versions[0] in MODERN_VERSIONS:
            await self._refuse(send, 405, f"{verb} is not part of {versions[0]}", ((b"allow", b"POST"),))
            return
        if self._routing is not None and await self._routing.handed_over(
            head, principal, None, b"", receive, send, modern=False
        ):
            return
        era = Era(modern=False, version=versions[0] if versions else "")
        try:
            session = self._session(head, principal, era)
        except _UnknownSession:
            await self._refuse(send, 404, "Session not found")
            return
        incoming = incoming_of(
            verb, principal, None, era, headers=head.forwarded, values=head.values, names=head.names, session=session
        )
        if verb == "DELETE":
            answer = await face.delete(incoming)
            if session is not None and answer.status < 300:  # noqa: PLR2004 - HTTP's class of success
                self._sessions.forget(session)
            await send_answer(send, answer)
            return
        watcher = watch(receive)
        try:
            answer = await face.get(incoming)
            await send_answer(send, answer)
        except asyncio.CancelledError:
            if not watcher.gone:
                raise
        finally:
            watcher.stop()


class _Gone(Exception):
    """The client went before its message was here."""


class _UnknownSession(Exception):
    """A session id that is not known here, or is another principal's."""
