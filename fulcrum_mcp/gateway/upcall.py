"""The gateway's own requests to an upstream: discovering it and listing what it offers. Never a tool call."""

from collections.abc import Sequence
from typing import Any, Final

from fulcrum_mcp import __version__
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.wire import LATEST_HANDSHAKE_VERSION, MODERN_VERSIONS, WireError, decode_strict, encode
from fulcrum_mcp.ports import Upstream, UpstreamReply, UpstreamRequest

__all__ = [
    "CLIENT_INFO",
    "META_CAPABILITIES",
    "META_CLIENT",
    "META_VERSION",
    "UpcallError",
    "Via",
    "ask",
    "open_legacy",
]

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
CLIENT_INFO: Final = {"name": "fulcrum", "version": __version__}

_UNSUPPORTED: Final = -32022
_OK: Final = 200
_CHALLENGES: Final = (401, 403)
_ACCEPT: Final = (b"accept", b"application/json, text/event-stream")


class UpcallError(Exception):
    """The upstream answered with an error: `code` and `data` are JSON-RPC's, `status` HTTP's."""

    def __init__(self, message: str, *, code: int = 0, status: int = 200, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.data = data

    @property
    def supported(self) -> Sequence[object]:
        """The versions that the upstream speaks, where it refused ours for its version."""
        versions = self.data.get("supported") if self.code == _UNSUPPORTED and isinstance(self.data, dict) else None
        return versions if isinstance(versions, list) else ()


class Via:
    """How to reach an upstream: in which version and, for the handshake era, in whose session."""

    __slots__ = ("principal", "session", "version")

    def __init__(self, version: str, session: str | None = None, principal: Principal | None = None) -> None:
        self.version = version
        self.session = session
        self.principal = principal

    @property
    def modern(self) -> bool:
        """True for versions without sessions."""
        return self.version in MODERN_VERSIONS

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers every request carries."""
        headers = [_ACCEPT, (b"mcp-protocol-version", self.version.encode())]
        if self.session is not None:
            headers.append((b"mcp-session-id", self.session.encode()))
        return headers


def _message(via: Via, method: str, params: dict[str, Any], request_id: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id is not None:
        document["id"] = request_id
    if via.modern:
        document["params"] = {
            **params,
            "_meta": {META_VERSION: via.version, META_CAPABILITIES: {}, META_CLIENT: CLIENT_INFO},
        }
    return document


async def _send(upstream: Upstream, via: Via, document: dict[str, Any]) -> UpstreamReply:
    headers = via.headers()
    if via.modern:
        headers.append((b"mcp-method", document["method"].encode()))
    return await upstream.send(UpstreamRequest("POST", headers, encode(document), document, via.principal))


async def _response(reply: UpstreamReply, request_id: str, where: str) -> dict[str, Any]:
    """The response with this id, from a body or a stream."""
    try:
        if not reply.streams:
            value = _object(await reply.read(), where, reply.status)
            if value.get("id") == request_id or "error" in value:
                return value
        else:
            async for event in reply.events():
                if not event.data:
                    continue
                value = _object(event.data, where, reply.status)
                if value.get("id") == request_id and "method" not in value:
                    return value
    finally:
        await reply.close()
    raise _no_answer(where, reply.status)


def _no_answer(where: str, status: int) -> UpcallError:
    """What stands there is no MCP server, or refuses the gateway's credentials."""
    remedy = "check its headers" if status in _CHALLENGES else "check its url or command"
    said = f"HTTP {status}" if status != _OK else "something else"
    return UpcallError(f"{where}: answered {said} instead of a JSON-RPC answer; {remedy}", status=status)


def _object(text: bytes, where: str, status: int) -> dict[str, Any]:
    try:
        value, _ = decode_strict(text)
    except WireError:
        value = None
    if not isinstance(value, dict):
        raise _no_answer(where, status)
    return value


async def ask(upstream: Upstream, via: Via, method: str, params: dict[str, Any], request_id: str) -> dict[str, Any]:
    """Send one request and return its result object.

    Raises:
        UpcallError: the upstream answered with an error or with something else than an answer.
        UpstreamFailed: it could not be reached or broke off.
    """
    where = f"upstream {upstream.name}: {method}"
    reply = await _send(upstream, via, _message(via, method, params, request_id))
    value = await _response(reply, request_id, where)
    error = value.get("error")
    if error is not None:
        code = error.get("code", 0) if isinstance(error, dict) else 0
        text = error.get("message", "") if isinstance(error, dict) else error
        msg = f"{where}: {text}"
        data = error.get("data") if isinstance(error, dict) else None
        raise UpcallError(msg, code=code if isinstance(code, int) else 0, status=reply.status, data=data)
    result = value.get("result")
    if not isinstance(result, dict):
        msg = f"{where}: the result is no object"
        raise UpcallError(msg)
    return result


async def open_legacy(upstream: Upstream, request_id: str) -> tuple[Via, dict[str, Any]]:
    """Open a session of the gateway's own by the initialize handshake; returns it and the initialize result."""
    hello = Via(LATEST_HANDSHAKE_VERSION)
    params = {"protocolVersion": hello.version, "capabilities": {}, "clientInfo": CLIENT_INFO}
    where = f"upstream {upstream.name}: initialize"
    reply = await _send(upstream, hello, _message(hello, "initialize", params, request_id))
    session = reply.headers.get("mcp-session-id")
    value = await _response(reply, request_id, where)
    result = value.get("result")
    if not isinstance(result, dict):
        error = value.get("error")
        if not isinstance(error, dict):
            raise _no_answer(where, reply.status)
        msg = f"{where}: {error.get('message')}"
        raise UpcallError(msg, status=reply.status)
    version = result.get("protocolVersion")
    via = Via(version if isinstance(version, str) else hello.version, session)
    done = await _send(upstream, via, _message(via, "notifications/initialized", {}, None))
    await done.close()
    return via, result


async def end_legacy(upstream: Upstream, via: Via) -> None:
    """End a session of the gateway's own; an upstream that cannot is left alone."""
    if via.session is None:
        return
    try:
        reply = await upstream.send(UpstreamRequest(verb="DELETE", headers=via.headers()))
        await reply.close()
    except UpstreamFailed:
        return
