"""The rig itself: what it says of the gateway is so."""

import json

import pytest
from gateway_rig import engine_of, loop_rig, open_rig
from scripted_server import ScriptedServer, tool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("modern", [True, False])
async def test_call_through_the_single_face_is_judged_forwarded_and_recorded(modern: bool) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client("/servers/files/mcp", modern=modern)
        if not modern:
            await client.connect()
        reply = await client.request("tools/call", {"name": "echo", "arguments": {"a": 1}})
        assert reply.status == 200
        assert reply.result["echo"]["arguments"] == {"a": 1}
        await rig.settled()
        assert [record["type"].rpartition(".")[2] for record in rig.records()] == ["decided", "finished"]
        assert [document["arguments"] for document in rig.engine.documents("call")] == [{"a": 1}]
        assert len(rig.servers["files"].calls) == 1
        assert rig.forwarded_blindly == 0


@pytest.mark.parametrize("modern", [True, False])
async def test_call_through_the_merged_face_reaches_the_named_server_only(modern: bool) -> None:
    async with open_rig(ScriptedServer("files"), ScriptedServer("web", tools=[tool("get")])) as rig:
        client = rig.client("/mcp", modern=modern)
        if not modern:
            assert (await client.connect()).status == 200
        assert [item["name"] for item in (await client.request("tools/list")).result["tools"]] == [
            "files__echo",
            "web__get",
        ]
        reply = await client.request("tools/call", {"name": "web__get", "arguments": {"b": [1]}})
        assert reply.result["echo"]["name"] == "get"
        assert rig.servers["files"].calls == []
        assert len(rig.servers["web"].calls) == 1


async def test_swapped_policies_hold_from_the_next_call_on() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client("/servers/files/mcp")
        rig.use(engine_of('package fulcrum.policies.no\n\nimport rego.v1\n\nallow if input.phase == "list"\n'))
        reply = await client.request("tools/call", {"name": "echo", "arguments": {}})
        assert reply.result["isError"] is True
        assert rig.servers["files"].calls == []
        assert json.loads(rig.engine.asked[-1][1])["phase"] == "call"


def test_loop_rig_serves_plain_functions() -> None:
    with loop_rig(ScriptedServer("files")) as loop:
        client = loop.rig.client("/servers/files/mcp")
        for number in range(3):
            reply = loop.run(client.request("tools/call", {"name": "echo", "arguments": {"n": number}}))
            assert reply.result["echo"]["arguments"] == {"n": number}
