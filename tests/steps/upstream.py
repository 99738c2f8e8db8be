"""The MCP server behind the gateway: at each call it looks whether that call was allowed to come."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from peers.marking_server import Marking, MarkingHttp

__all__ = ["TOOLS", "Asked", "AskedHttp", "Seen"]

TOOLS: Final = ("mark", "dear", "scarce", "paced", "secret", "export", "ask", "slow", "added")
_CACHED: Final = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
_SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_CACHED},
    "tools/list": {"tools": [{"name": name, "inputSchema": _SCHEMA} for name in TOOLS], **_CACHED},
}
_ASK: Final = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {}}},
    "requestState": "up-1",
}


@dataclass(frozen=True)
class Seen:
    """One call that reached the upstream. `complaint`: why it should not have; empty when all is well."""

    tool: str
    text: str
    complaint: str


class Asked:
    """The server without its transport. `judge` looks at the world as a call arrives."""

    def __init__(self, judge: Callable[[str], str]) -> None:
        self.seen: list[Seen] = []
        self.let_go = asyncio.Event()
        """What is slow is answered."""
        self._judge = judge

    def times(self, text: str) -> int:
        """How often a call was seen."""
        return sum(each.text == text for each in self.seen)

    async def answer(self, text: bytes) -> bytes:
        """Empty to a notification."""
        message = json.loads(text)
        if "id" not in message:
            return b""
        method, params = message["method"], message.get("params", {})
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if method == "tools/call":
            answer["result"] = await self._called(params)
        elif method in _ANSWERS:
            answer["result"] = _ANSWERS[method]
        else:
            answer["error"] = {"code": -32601, "message": "method not found"}
        return json.dumps(answer).encode()

    async def _called(self, params: dict[str, Any]) -> dict[str, Any]:
        tool, said = params["name"], params["arguments"]["text"]
        self.seen.append(Seen(tool, said, self._judge(said)))
        if tool == "slow":
            await self.let_go.wait()
        if tool == "ask" and "requestState" not in params:
            return _ASK
        return {"content": [{"type": "text", "text": said}], "resultType": "complete"}


class AskedHttp(MarkingHttp):
    """One connection."""

    def __init__(self, server: Asked) -> None:
        super().__init__(Marking.__new__(Marking))
        self._asked = server
        self._answering: asyncio.Task[None] | None = None

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            self._write(405, b"")
            return
        self._answering = asyncio.get_running_loop().create_task(self._answer(self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, text: bytes) -> None:
        body = await self._asked.answer(text)
        self._write(200 if body else 202, body)
