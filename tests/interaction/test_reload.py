"""Policies that change while calls are under way: every call is decided, to its end, by the ones it began with."""

import asyncio
from functools import partial
from typing import Any

import pytest
from gateway_rig import ALLOW_ALL, engine_of, open_rig
from live_stream import LiveStream, answer, open_post, until
from scripted_server import ScriptedServer

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
META = "dev.fulcrum/decision"
SAYING = """package fulcrum.policies.{name}

import rego.v1

allow := true

warn contains "v{version}" if input.phase == "call"

deny contains "v{version}" if {{
	input.phase == "result"
	input.result.echo
}}
"""


def saying(version: int) -> RegoEngine:
    return engine_of(*(SAYING.format(name=name, version=version) for name in ("one", "two")))


def is_longer(told: list[set[str]], than: int) -> bool:
    return len(told) > than


async def test_two_hundred_reloads_under_calls_mix_no_decision() -> None:
    async with open_rig(ScriptedServer("files"), rego=saying(0)) as rig:
        client = rig.client(PATH)
        done = asyncio.Event()
        told: list[set[str]] = []

        async def calling() -> None:
            while not done.is_set():
                reply = await client.request("tools/call", ECHO)
                told.append({reason["message"] for reason in reply.result["_meta"][META]["reasons"]})

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(calling())
            for version in range(1, 201):
                rig.use(saying(version))
                await until(partial(is_longer, told, len(told)), "a call under these policies")
            done.set()
        await until(lambda: len(rig.records("finished")) == len(told), "every call has ended")
        assert all(len(each) == 1 for each in told)
        assert len({next(iter(each)) for each in told}) > 100
        decided = {record["data"]["decision_id"]: record["data"] for record in rig.records("decided")}
        finished = [record["data"] for record in rig.records("finished")]
        assert len(decided) == len(finished) == len(told)
        for end in finished:
            begun = {reason["message"] for reason in decided[end["decision_id"]]["warnings"]}
            assert begun == {reason["message"] for reason in end["reasons"]}, end


@pytest.mark.parametrize("modern", [True, False])
async def test_answer_that_comes_after_a_reload_is_judged_by_the_policies_of_its_call(modern: bool) -> None:
    live = LiveStream()

    def streamed(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        return live.reply if (request.document or {}).get("method") == "tools/call" else None

    async with open_rig(ScriptedServer("files", answer=streamed), rego=saying(1)) as rig:
        client = rig.client(PATH, modern=modern)
        if not modern:
            await client.connect()
        stream = open_post(client, "tools/call", ECHO)
        await stream.head()
        rig.use(engine_of(ALLOW_ALL))
        live.push(answer(7, echo=1))
        live.end()
        result: dict[str, Any] = (await stream.end()).result
        assert {reason["message"] for reason in result["_meta"][META]["reasons"]} == {"v1"}


async def test_tool_that_a_reload_hides_is_gone_from_list_and_calls_at_once() -> None:
    hiding = 'package fulcrum.policies.h\n\nimport rego.v1\n\nallow if input.tool.name != "echo"\n'
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client(PATH)
        assert len((await client.request("tools/list")).result["tools"]) == 1
        rig.use(engine_of(hiding))
        assert (await client.request("tools/list")).result["tools"] == []
        denied = await client.request("tools/call", ECHO)
        assert denied.result["_meta"][META]["reasons"][0]["code"] == "not_listed"
