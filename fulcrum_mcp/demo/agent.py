"""The agent: the MCP SDK's own client, as any agent would use it, and a clock on what the gateway says it took."""

import contextlib
import re
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from fulcrum_mcp.demo.story import Answer, Step

__all__ = ["Agent", "connected"]

_DECISION = "dev.fulcrum/decision"
_STAGE = re.compile(r"([A-Za-z_-]+)[^,]*?;\s*dur=([0-9.]+)")


class Agent:
    """One connected client. `overhead`: the gateway's own share of the last call in milliseconds, where it says so."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.overhead: float | None = None
        self.seconds = 0.0

    async def tools(self) -> list[str]:
        """The names it is shown, all pages."""
        names = list[str]()
        cursor: str | None = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return names

    async def call(self, step: Step) -> Answer:
        """Make one call; a denial is an answer, not an exception."""
        self.overhead = None
        began = time.perf_counter()
        try:
            result = await self._client.call_tool(step.tool, dict(step.arguments))
        except MCPError as error:
            data: Any = error.data
            decision = data.get(_DECISION, data) if isinstance(data, dict) else {}
            return Answer(error.message, is_error=True, decision=decision)
        finally:
            self.seconds = time.perf_counter() - began
        return _answer(result)

    async def heard(self, response: httpx2.Response) -> None:
        """Note what `Server-Timing` says: everything but the time spent upstream."""
        stages = dict[str, float]()
        for name, duration in _STAGE.findall(response.headers.get("server-timing", "")):
            stages[name] = stages.get(name, 0.0) + float(duration)
        if stages:
            total = stages.pop("total", None)
            upstream = stages.pop("upstream", 0.0) + stages.pop("forward", 0.0)
            self.overhead = total - upstream if total is not None else sum(stages.values())


def _answer(result: CallToolResult) -> Answer:
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    meta: dict[str, Any] = dict(result.meta or {})
    return Answer(text, is_error=bool(result.is_error), decision=meta.get(_DECISION, {}))


@contextlib.asynccontextmanager
async def connected(url: str, key: str) -> AsyncGenerator[Agent]:
    """An agent that speaks to the gateway at `url` with its own key."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        agent = Agent(client)
        http.event_hooks = {"response": [agent.heard]}
        yield agent
