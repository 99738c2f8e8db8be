"""Kill switches and calls that no request waits for: those that asked their client back, and tasks."""

import asyncio
from typing import Any

import pytest
from gateway_rig import open_rig
from kill_switches import CALLS, ECHO, PATH, WHY, balance, outcomes, switch, told
from live_stream import open_post, until
from scripted_server import ScriptedServer, json_reply

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio


async def test_call_that_waits_for_its_client_is_settled_and_its_next_leg_denied() -> None:
    ask = {"resultType": "input_required", "inputRequests": {}, "requestState": "up-1"}

    def asking(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/call" or "requestState" in document["params"]:
            return None
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": ask})

    async with open_rig(ScriptedServer("files", answer=asking), budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = (await client.request("tools/call", ECHO)).result["requestState"]
        await rig.settled()
        assert balance(rig) == (0, 1)
        rig.throw(switch())
        await until(lambda: balance(rig) == (1, 0), "settled at the estimate")
        next_leg = {**ECHO, "requestState": state, "inputResponses": {}}
        assert WHY in told((await client.request("tools/call", next_leg)).message)
        rig.throw()
        assert (await client.request("tools/call", next_leg)).result["echo"]["name"] == "echo"
        await until(lambda: balance(rig) == (2, 0), "afterwards it is a call of its own")


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
async def test_task_is_settled_called_off_and_tells_why(modern: bool) -> None:
    def working(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        task = {"taskId": "t1", "status": "working"}
        if document.get("method") == "tools/call":
            result: dict[str, Any] = {"resultType": "task", **task} if modern else {"task": task}
            return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})
        return None

    async with open_rig(ScriptedServer("files", answer=working), budgets=[CALLS]) as rig:
        client = rig.client(PATH, modern=modern)
        if not modern:
            await client.connect()
        await client.request("tools/call", ECHO)
        assert len(rig.hub.settler.in_flight) == 1
        rig.throw(switch())
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)
        asked = rig.servers["files"].requests
        await until(lambda: _method(asked[-1]) == "tasks/cancel", "the upstream is told")
        assert (asked[-1].document or {})["params"]["taskId"] == "t1"
        assert ((b"mcp-method", b"tasks/cancel") in asked[-1].headers) is modern
        before = len(asked)
        reply = await client.request("tasks/get", {"taskId": "t1"})
        assert WHY in reply.message["error"]["message"]
        assert WHY in told((await client.request("tasks/result", {"taskId": "t1"})).message)
        rig.throw()
        assert WHY in told((await client.request("tasks/result", {"taskId": "t1"})).message), "what ended has ended"
        assert len(asked) == before, "nobody asks the upstream after it any more"


def _method(request: UpstreamRequest) -> object:
    return (request.document or {}).get("method")


async def test_waiting_for_a_tasks_result_ends_with_the_task() -> None:
    gate = asyncio.Event()

    def working(server: ScriptedServer, request: UpstreamRequest) -> Any:
        document = request.document or {}
        task = {"taskId": "t1", "status": "working"}
        if document.get("method") == "tools/call":
            return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": {"resultType": "task", **task}})
        if document.get("method") == "tasks/result":
            return _when(gate, server, request)
        return None

    async with open_rig(ScriptedServer("files", answer=working), budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        await client.request("tools/call", ECHO)
        waiting = [open_post(client, "tasks/result", {"taskId": "t1"}, request_id=n) for n in range(2)]
        await until(lambda: len(rig.servers["files"].calls) == 3, "both wait")
        rig.throw(switch())
        for stream in waiting:
            assert WHY in told((await stream.end()).message)


async def _when(gate: asyncio.Event, server: ScriptedServer, request: UpstreamRequest) -> MemoryReply:
    await gate.wait()
    return server.usual(request)
