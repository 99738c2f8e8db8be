"""A server on the loopback that answers like OPA's `/v1/data/fulcrum/policies`, and in ways that OPA should not.

No registry that this project uses carries OPA's own binary, so its data API stands here: sets as arrays, undefined
rules absent, a failing rule as status 500, an undefined document as `{}`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fulcrum_adapters.rego import native
from fulcrum_mcp.core.policy import PolicySource

__all__ = ["FakeOpa", "opa_over"]

Answer = bytes | None
"""Raw bytes to send; None: close without a word."""


@dataclass
class FakeOpa:
    """What it was asked, and the hook that answers: from a request's body to a whole HTTP response."""

    respond: Callable[[bytes], Answer]
    delay: float = 0.0
    url: str = ""
    requests: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeOpa"]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
                )
                body = await reader.readexactly(length)
                self.requests.append((head.split("\r\n", 1)[0], body))
                if self.delay:
                    await asyncio.sleep(self.delay)
                answer = self.respond(body)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def response(document: Any, status: str = "200 OK", raw: bytes | None = None) -> bytes:
    body = json.dumps(document).encode() if raw is None else raw
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def opa_over(source: PolicySource) -> Callable[[bytes], Answer]:
    """Answers as an OPA with these policies does."""
    engine = native.build([(module.path, module.source) for module in source.modules], source.data)

    def respond(body: bytes) -> Answer:
        clone = engine.clone()
        try:
            document = json.dumps(json.loads(body)["input"])
            native.guarded(lambda: clone.set_input_json(document))
            rows = native.query(clone, "data.fulcrum.policies")["result"]
        except native.RegoFault as fault:
            return response({"code": "internal_error", "message": str(fault)}, "500 Internal Server Error")
        provenance = {"version": "1.0.0", "bundles": {"main": {"revision": "r1"}}}
        return response({"result": rows[0]["expressions"][0]["value"], "provenance": provenance})

    return respond
