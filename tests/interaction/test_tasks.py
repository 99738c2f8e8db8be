"""Calls that an upstream ends later as a task: settled at their end, known to their principal only."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from gateway_rig import KEY, PRINCIPAL, Client, Rig, open_rig
from scripted_server import ScriptedServer, json_reply

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})
BOB = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
PRINCIPALS = {KEY: PRINCIPAL, "key-of-bob": BOB}
JUDGING = """package fulcrum.policies.judging

import rego.v1

allow := true

deny contains "leaks" if {
	input.phase == "result"
	input.result.result.secret
}

deny contains "leaks" if {
	input.phase == "result"
	input.result.secret
}
"""


class Working:
    """tools/call begins a task named `name`; `state` is what tasks/* say of it."""

    def __init__(self, *, modern: bool = True, server: str = "files", name: str = "t1") -> None:
        self.modern = modern
        self.name = name
        self.state: dict[str, Any] = {"status": "working"}
        self.error: dict[str, Any] | None = None
        self.server = ScriptedServer(server, answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        method = document.get("method", "")
        result: dict[str, Any]
        if method == "tools/call":
            task = {"taskId": self.name, "status": "working"}
            result = {"resultType": "task", **task} if self.modern else {"task": task}
        elif method == "tasks/list":
            result = {"tasks": [{"taskId": self.name}, {"taskId": "of-somebody-else"}, "odd"]}
        elif method.startswith("tasks/"):
            if self.error is not None:
                return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": self.error})
            result = {"taskId": self.name, **self.state}
        else:
            return None
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})


async def begin(rig: Rig, *, modern: bool = True, path: str = PATH) -> Client:
    client = rig.client(path, modern=modern)
    if not modern:
        await client.connect()
    name = "echo" if path != "/mcp" else "files__echo"
    reply = await client.request("tools/call", {"name": name, "arguments": {}})
    assert "t1" in str(reply.result)
    await rig.settled()
    assert balance(rig) == (0, 1)
    assert rig.records("finished") == []
    return client


def get(client: Client, task: object = "t1", method: str = "tasks/get") -> Any:
    return client.request(method, {"taskId": task})


def balance(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


def ends(rig: Rig) -> list[str]:
    return [record["data"]["outcome"] for record in rig.records("finished")]


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(("status", "outcome"), [("completed", "ok"), ("failed", "error"), ("cancelled", "cancelled")])
async def test_call_is_settled_when_its_task_has_ended(modern: bool, status: str, outcome: str) -> None:
    working = Working(modern=modern)
    async with open_rig(working.server, budgets=[CALLS]) as rig:
        client = await begin(rig, modern=modern)
        assert (await get(client)).result["status"] == "working"
        await rig.settled()
        assert ends(rig) == []
        working.state = {"status": status}
        for _ in range(3):
            assert (await get(client)).result["status"] == status
        await rig.settled()
        assert ends(rig) == [outcome]
        assert balance(rig) == (1, 0)


async def test_result_of_a_task_settles_it_in_the_older_era() -> None:
    working = Working(modern=False)
    async with open_rig(working.server, budgets=[CALLS]) as rig:
        client = await begin(rig, modern=False)
        working.state = {"content": [], "isError": True}
        assert (await get(client, method="tasks/result")).result["isError"] is True
        await rig.settled()
        assert ends(rig) == ["error"]
        assert balance(rig) == (1, 0)


async def test_error_about_a_task_settles_nothing() -> None:
    working = Working()
    async with open_rig(working.server, budgets=[CALLS]) as rig:
        client = await begin(rig)
        working.error = {"code": -32000, "message": "busy"}
        assert (await get(client)).code == -32000
        await rig.settled()
        assert ends(rig) == []


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result"])
async def test_foreign_and_invented_tasks_are_unknown_and_nothing_is_forwarded(method: str) -> None:
    working = Working()
    async with open_rig(working.server, budgets=[CALLS], principals=PRINCIPALS) as rig:
        client = await begin(rig)
        before = len(working.server.calls)
        for reply in (
            await get(rig.client(PATH, key="key-of-bob"), method=method),
            await get(client, "t2", method),
            await get(client, ["t1"], method),
        ):
            assert reply.code == -32602
        assert len(working.server.calls) == before


async def test_list_of_tasks_shows_ones_own() -> None:
    working = Working()
    async with open_rig(working.server, principals=PRINCIPALS, budgets=[CALLS]) as rig:
        client = await begin(rig)
        assert (await client.request("tasks/list")).result["tasks"] == [{"taskId": "t1"}]
        assert (await rig.client(PATH, key="key-of-bob").request("tasks/list")).result["tasks"] == []


async def test_what_a_task_brings_is_judged_like_a_result() -> None:
    working = Working()
    async with open_rig(working.server, rego=[JUDGING], budgets=[CALLS]) as rig:
        client = await begin(rig)
        working.state = {"status": "completed", "result": {"secret": "xyzzy"}}
        for _ in range(2):
            reply = await get(client)
            assert b"xyzzy" not in reply.body
            assert reply.code == 403001
        await rig.settled()
        assert ends(rig) == ["withheld"]
        assert balance(rig) == (1, 0)


async def test_task_is_found_on_its_server_through_the_merged_face() -> None:
    working, web = Working(), ScriptedServer("web")
    async with open_rig(working.server, web, budgets=[CALLS], principals=PRINCIPALS) as rig:
        client = await begin(rig, path="/mcp")
        working.state = {"status": "completed"}
        assert (await get(client)).result["status"] == "completed"
        assert (await get(client, "t2")).code == -32602
        assert (await get(rig.client("/mcp", key="key-of-bob"))).code == -32602
        assert web.calls == []
        await rig.settled()
        assert ends(rig) == ["ok"]


async def test_equal_task_names_of_two_servers_are_refused_on_the_merged_face() -> None:
    one, two = Working(), Working(server="web")
    async with open_rig(one.server, two.server, budgets=[CALLS]) as rig:
        client = await begin(rig, path="/mcp")
        await client.request("tools/call", {"name": "web__echo", "arguments": {}})
        assert (await get(client)).code == -32602
        assert (await get(rig.client("/servers/web/mcp"))).result["taskId"] == "t1"


async def test_task_that_never_ends_has_an_unknown_outcome_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    working = Working()
    async with open_rig(working.server, budgets=[CALLS]) as rig:
        client = await begin(rig)
        rig.hub.sweep(time.monotonic())
        await rig.settled()
        assert ends(rig) == []
        tomorrow = SimpleNamespace(monotonic=lambda: time.monotonic() + 24 * 3600 + 1)
        monkeypatch.setattr("fulcrum_mcp.gateway.tasks.time", tomorrow)
        rig.hub.sweep(time.monotonic())
        await rig.settled()
        assert ends(rig) == ["outcome_unknown"]
        assert balance(rig) == (1, 0)
        assert (await get(client)).code == -32602


async def test_same_name_again_leaves_no_call_unsettled() -> None:
    working = Working()
    async with open_rig(working.server, budgets=[CALLS]) as rig:
        client = await begin(rig)
        await client.request("tools/call", {"name": "echo", "arguments": {}})
        working.state = {"status": "completed"}
        await get(client)
        await rig.settled()
        assert sorted(ends(rig)) == ["ok", "outcome_unknown"]
        assert balance(rig) == (2, 0)
