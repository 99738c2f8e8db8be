"""An MCP server in memory, behind the `Upstream` port: offers and answers what it is told to, and keeps everything."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from fulcrum_adapters.memory.upstream import MemoryReply, MemoryUpstream
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

__all__ = ["HANDSHAKE", "MODERN", "Answering", "ScriptedServer", "json_reply", "sse_reply", "tool"]

MODERN: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"

Answering = Callable[["ScriptedServer", UpstreamRequest], MemoryReply | Awaitable[MemoryReply] | None]
"""What it does with a request; None: what it would do anyway."""

_LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


def tool(name: str, **members: Any) -> dict[str, Any]:
    """A descriptor."""
    return {"name": name, "inputSchema": {"type": "object"}, **members}


def json_reply(message: object, *, status: int = 200, **headers: str) -> MemoryReply:
    """One body: a message as JSON text, or bytes as they are."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return MemoryReply(status, {"content-type": "application/json", **named}, body)


def sse_reply(*messages: object, first_id: int | None = None) -> MemoryReply:
    """A stream of messages (bytes as they are), with event ids from `first_id` on."""
    events = [
        ServerSentEvent(
            message if isinstance(message, bytes) else json.dumps(message).encode(),
            id=None if first_id is None else f"e{first_id + number}",
        )
        for number, message in enumerate(messages)
    ]
    return MemoryReply(200, {"content-type": "text/event-stream"}, stream=events)


class ScriptedServer(MemoryUpstream):
    """One server of one era, or of both. `offers` are its descriptors by the result's member name."""

    def __init__(
        self,
        name: str,
        *,
        tools: Sequence[Mapping[str, Any]] = (tool("echo"),),
        prompts: Sequence[Mapping[str, Any]] = (),
        resources: Sequence[Mapping[str, Any]] = (),
        templates: Sequence[Mapping[str, Any]] = (),
        eras: Sequence[str] = (MODERN, HANDSHAKE),
        sessions: bool = True,
        answer: Answering | None = None,
    ) -> None:
        super().__init__(name, self._respond)
        self.offers: dict[str, list[Mapping[str, Any]]] = {
            "tools": list(tools),
            "prompts": list(prompts),
            "resources": list(resources),
            "resourceTemplates": list(templates),
        }
        self.eras = eras
        self.sessions = sessions
        self.answer = answer
        self._opened = 0

    @property
    def received(self) -> list[bytes]:
        """The messages of clients, as they came; what the gateway asks on its own is left out."""
        return [request.message for request in self.requests if not _own(request)]

    @property
    def calls(self) -> list[Any]:
        """The messages of clients that are governed or of no known method, parsed."""
        quiet = {*_LISTS, "initialize", "server/discover", "ping", "notifications/initialized"}
        return [message for message in map(json.loads, filter(None, self.received)) if message["method"] not in quiet]

    def _respond(self, request: UpstreamRequest) -> MemoryReply | Awaitable[MemoryReply]:
        if self.answer is not None:
            told = self.answer(self, request)
            if told is not None:
                return told
        return self.usual(request)

    def usual(self, request: UpstreamRequest) -> MemoryReply:
        """What it does untold: lists, handshakes, and an echo of the params to everything else."""
        document = request.document
        if document is None:
            return MemoryReply(200 if request.verb == "DELETE" else 405)
        if "id" not in document or "method" not in document:
            return MemoryReply(202)
        method, params = document["method"], document.get("params", {})
        if method == "initialize":
            return self._initialize(document)
        if method == "server/discover":
            return self._discover(document)
        result: dict[str, Any] = {"resultType": "complete"} if self._modern(request) else {}
        if method in _LISTS:
            result |= {_LISTS[method]: self.offers[_LISTS[method]]}
            if self._modern(request):
                result |= {"ttlMs": 60_000, "cacheScope": "private"}
        else:
            result |= {"content": [], "echo": params}
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})

    @staticmethod
    def _modern(request: UpstreamRequest) -> bool:
        return (b"mcp-protocol-version", MODERN.encode()) in request.headers

    def _capabilities(self) -> dict[str, Any]:
        offered: dict[str, Any] = {name: {} for name in ("tools", "prompts", "resources") if self.offers[name]}
        if self.offers["resourceTemplates"]:
            offered["resources"] = {}
        return {"tools": {}, **offered}

    def _discover(self, document: Mapping[str, Any]) -> MemoryReply:
        if MODERN not in self.eras:
            error = {"code": -32601, "message": "Method not found"}
            return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": error})
        result = {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": self._capabilities(),
            "ttlMs": 0,
            "cacheScope": "private",
        }
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})

    def _initialize(self, document: Mapping[str, Any]) -> MemoryReply:
        result = {
            "protocolVersion": HANDSHAKE,
            "capabilities": self._capabilities(),
            "serverInfo": {"name": self.name, "version": "1"},
        }
        reply = json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})
        if self.sessions:
            self._opened += 1
            reply.headers = {**reply.headers, "mcp-session-id": f"{self.name}-{self._opened}"}
        return reply


def _own(request: UpstreamRequest) -> bool:
    document = request.document or {}
    return str(document.get("id", "")).startswith("fulcrum-")
