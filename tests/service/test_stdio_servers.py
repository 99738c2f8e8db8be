"""Servers that we did not write, in both eras, each over a process of its own."""

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from peers.stdio_client import META, Client, read, upstream

from fulcrum_adapters.upstream.stdio import StdioConfig, StdioUpstream
from fulcrum_mcp.ports import UpstreamReply

pytestmark = [pytest.mark.anyio, pytest.mark.service]

BIN = Path(sys.executable).parent
PEER = Path(__file__).parent.parent / "peers" / "sdk_stdio.py"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def sdk() -> AsyncIterator[StdioUpstream]:
    async with upstream(StdioConfig((sys.executable, str(PEER)))) as to:
        yield to


async def message(reply: UpstreamReply) -> Any:
    with anyio.fail_after(20):
        async for event in reply.events():
            if event.data:
                return json.loads(event.data)
    return None


async def connected(to: StdioUpstream, version: str) -> Client:
    client = Client(to, version)
    if version < "2026-07-28":
        params = {
            "protocolVersion": version,
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "t", "version": "0"},
        }
        reply = await client.post("initialize", params)
        assert (await read(reply))[-1]["result"]["protocolVersion"] == version
        client.session = reply.headers["mcp-session-id"]
        await client.notify("notifications/initialized", {})
    return client


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"])
async def test_sdk_server_answers_calls_with_progress_in_every_version(sdk: StdioUpstream, version: str) -> None:
    client = await connected(sdk, version)
    result = (await read(await client.call("add", {"a": 1, "b": 2})))[-1]["result"]
    assert result["content"][0]["text"] == "3"
    messages = await read(await client.call("count", {"steps": 2}, meta={"progressToken": "tok"}))
    assert [m["params"]["progressToken"] for m in messages[:-1]] == ["tok", "tok"]


async def test_sdk_server_discovers_listens_and_notices_the_end_of_a_stream(sdk: StdioUpstream) -> None:
    client = Client(sdk)
    (found,) = await read(await client.post("server/discover", {"_meta": META}))
    assert found["result"]["supportedVersions"] == ["2026-07-28"]
    listening = await client.post(
        "subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": META}, "sub"
    )
    assert (await message(listening))["method"] == "notifications/subscriptions/acknowledged"
    await client.call("change")
    assert (await message(listening))["params"]["_meta"][SUBSCRIPTION] == "sub"
    await listening.close()
    waiting = await client.call("wait")
    await waiting.close()
    assert (await client.call("change")).status == 200


async def test_sdk_server_asks_the_legacy_client_and_gets_its_answer(sdk: StdioUpstream) -> None:
    client = await connected(sdk, "2025-11-25")
    reply = await client.call("greet")
    asked = await message(reply)
    assert asked["method"] == "elicitation/create"
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
    assert (await sdk.send(client.request("POST", answer))).status == 202
    assert (await message(reply))["result"]["content"][0]["text"] == "accept Ada"


async def test_sdk_server_speaks_both_eras_at_once_in_separate_processes(sdk: StdioUpstream) -> None:
    old, new = await connected(sdk, "2025-06-18"), Client(sdk)
    assert (await read(await new.call("add", {"a": 1, "b": 2})))[-1]["result"]["resultType"] == "complete"
    assert "resultType" not in (await read(await old.call("add", {"a": 1, "b": 2})))[-1]["result"]
    assert len(sdk.pids) == 2


async def test_published_time_server_answers_through_its_launcher_and_leaves_no_process() -> None:
    ours = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    async with upstream(StdioConfig((str(BIN / "uvx"), "mcp-server-time"), ours)) as to:
        with anyio.fail_after(90):
            client = await connected(to, "2025-06-18")
            tools = (await read(await client.post("tools/list", {})))[-1]["result"]["tools"]
            assert {tool["name"] for tool in tools} == {"get_current_time", "convert_time"}
            messages = await read(await client.call("get_current_time", {"timezone": "Europe/Paris"}))
        assert json.loads(messages[-1]["result"]["content"][0]["text"])["timezone"] == "Europe/Paris"
