"""A stdio server behind the `Upstream` port: Streamable HTTP's terms over processes, without HTTP.

The era is read from each request; a process only ever hears one of them, because a server's first request fixes it.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import msgspec

from fulcrum_adapters.upstream.stdio.config import StdioConfig
from fulcrum_adapters.upstream.stdio.events import EventReader
from fulcrum_adapters.upstream.stdio.multiplexer import Exchange
from fulcrum_adapters.upstream.stdio.reply import StdioReply
from fulcrum_adapters.upstream.stdio.session import Session
from fulcrum_adapters.upstream.stdio.table import ProcessTable
from fulcrum_adapters.upstream.stdio.wire import Message, error, members
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.ports import UpstreamRequest

__all__ = ["StdioUpstream"]

_MODERN = "2026-07-28"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_INVALID_REQUEST = -32600
_STATUS = {-32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404}
"""HTTP status of an error that comes before a stream began (2026-07-28, streamable HTTP)."""


class StdioUpstream:
    """One configured stdio server: a process for all modern clients, one for each legacy session."""

    def __init__(self, name: str, config: StdioConfig, *, log: Callable[[str, str], None] | None = None) -> None:
        """`log` gets the server's name and each line of its stderr, secrets blotted out."""
        self.name = name
        self._config = config
        self._table = ProcessTable(name, config, log)

    @property
    def pids(self) -> list[int]:
        """The servers' process ids, for `doctor` and tests."""
        return self._table.pids

    async def send(self, request: UpstreamRequest) -> StdioReply:
        """See `fulcrum_mcp.ports.Upstream`."""
        headers = dict(request.headers)
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        session_id = headers.get(b"mcp-session-id", b"").decode("latin-1")
        document = request.document
        if document is None:
            document = msgspec.json.decode(request.message, type=dict[str, Any]) if request.message else {}
        owner = _owner(request.principal)
        if _is_modern(version, session_id, document):
            if request.verb != "POST":
                return StdioReply(405, headers={"allow": "POST"})
            return await self._modern(request.message, document, owner)
        if not session_id:
            return await self._begin(request, document, owner, version)
        return await self._in_session(session_id, request, document, owner)

    async def _in_session(
        self, session_id: str, request: UpstreamRequest, document: Mapping[str, Any], owner: Hashable
    ) -> StdioReply:
        session = self._table.find(session_id, owner)
        if session is None:
            text = "Session not found: it ended or was never here; send initialize to begin a new one"
            return StdioReply(404, error(_INVALID_REQUEST, text, document))
        if request.verb == "DELETE":
            await self._table.end(session)
            return StdioReply(204)
        if request.verb == "GET":
            return _listen(session, dict(request.headers).get(b"last-event-id", b"").decode("latin-1"))
        return await self._legacy(session, request.message, document)

    async def _modern(self, message: bytes, document: Mapping[str, Any], owner: Hashable) -> StdioReply:
        modern = await self._table.shared()
        if "id" not in document or "method" not in document:
            if "method" in document:
                modern.tell(message, document, owner)
            return StdioReply(202)
        exchange = modern.ask(message, document, owner)
        reader = exchange.stream.read(0, lambda closed: modern.closed(exchange, closed))
        return await self._answer(exchange, reader, None)

    async def _begin(
        self, request: UpstreamRequest, document: Mapping[str, Any], owner: Hashable, version: str
    ) -> StdioReply:
        if request.verb != "POST" or document.get("method") != "initialize" or "id" not in document:
            text = "Missing session: send initialize first and repeat its mcp-session-id with every request"
            return StdioReply(400, error(_INVALID_REQUEST, text, document))
        session = await self._table.open(owner)
        params = document.get("params")
        asked = params.get("protocolVersion") if isinstance(params, Mapping) else None
        session.version = asked if isinstance(asked, str) else version
        try:
            exchange = session.ask(request.message, document, owner)
            reader = session.reads(exchange)
            reply = await self._answer(exchange, reader, session)
        except BaseException:
            self._table.end_soon(session)
            raise
        if exchange.answer is not None and not session.initialized:
            self._table.end_soon(session)
            return reply
        reply.headers = {**reply.headers, "mcp-session-id": session.id}
        return reply

    async def _legacy(self, session: Session, message: bytes, document: Mapping[str, Any]) -> StdioReply:
        if "method" not in document or "id" not in document:
            session.tell(message, document)
            return StdioReply(202)
        exchange = session.ask(message, document, session.owner)
        return await self._answer(exchange, session.reads(exchange), session)

    async def _answer(self, exchange: Exchange, reader: EventReader, session: Session | None) -> StdioReply:
        """JSON when the first thing that comes is the answer, else a stream; the head waits `stream_delay` at most."""
        stream = exchange.stream
        try:
            await reader.first(self._config.stream_delay)
        except BaseException:
            reader.close()
            raise
        answer = exchange.answer
        if answer is None or stream.end != 1 or stream.start != 0:
            if session is not None:
                session.prime(reader)
            return StdioReply(200, reader=reader)
        body = stream.at(0)[0]
        reader.close()
        if session is not None:
            session.drop(stream)
            return StdioReply(200, body)
        return StdioReply(_status(answer), body)

    async def close(self) -> None:
        """End every process. Idempotent."""
        await self._table.close()


def _is_modern(version: str, session_id: str, document: Mapping[str, Any]) -> bool:
    if version:
        return version >= _MODERN
    if session_id:
        return False
    params = document.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    named = meta.get(_VERSION_KEY) if isinstance(meta, Mapping) else None
    if isinstance(named, str):
        return named >= _MODERN
    return document.get("method") == "server/discover"


def _owner(principal: Principal | None) -> Hashable:
    """Who a session belongs to. A delegate of somebody else is somebody else."""
    if principal is None:
        return ("", "", "", b"")
    behalf = principal.on_behalf_of
    return (
        principal.tenant,
        principal.agent,
        principal.key,
        b"" if behalf is None else msgspec.json.encode(behalf, order="deterministic"),
    )


def _listen(session: Session, resume: str) -> StdioReply:
    if resume:
        reader = session.resume(resume)
        if reader is None:
            text = "Last-Event-ID is not known here, or its stream has too many readers; send the request anew"
            return StdioReply(400, error(_INVALID_REQUEST, text, None))
        return StdioReply(200, reader=reader)
    reader = session.stand()
    if reader is None:
        text = "Conflict: this session has a GET stream already; close it first"
        return StdioReply(409, error(_INVALID_REQUEST, text, None))
    return StdioReply(200, reader=reader)


def _status(answer: Message) -> int:
    if "error" not in answer:
        return 200
    code = msgspec.json.decode(members(answer["error"]).get("code", b"0"))
    return _STATUS.get(code, 200) if isinstance(code, int) else 200
