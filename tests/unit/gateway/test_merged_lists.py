import base64
from typing import Any

import pytest
from gateway_rig import Rig, open_rig
from scripted_server import MODERN, ScriptedServer, tool

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.merged_lists import PAGE, instructions_of, merged_capabilities, ready_catalogs

pytestmark = pytest.mark.anyio


async def pages(rig: Rig, method: str, member: str) -> list[list[Any]]:
    found: list[list[Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        result = (await rig.client("/mcp").request(method, cursor)).result
        found.append(result[member])
        if "nextCursor" not in result:
            return found
        cursor = {"cursor": result["nextCursor"]}


async def test_long_lists_come_in_pages_that_hold_each_tool_once() -> None:
    names = [f"t{number}" for number in range(PAGE + 7)]
    servers = [ScriptedServer(server, tools=[tool(name) for name in names]) for server in ("a", "b")]
    async with open_rig(*servers) as rig:
        found = await pages(rig, "tools/list", "tools")
        assert [len(page) for page in found] == [PAGE, PAGE, 14]
        wanted = [f"{server}__{name}" for server in ("a", "b") for name in names]
        assert [item["name"] for page in found for item in page] == wanted


async def test_list_is_marked_as_this_clients_own_in_the_modern_era_only() -> None:
    async with open_rig(ScriptedServer("a")) as rig:
        result = (await rig.client("/mcp").request("tools/list")).result
        assert (result["cacheScope"], result["ttlMs"], result["resultType"]) == ("private", 0, "complete")
        old = rig.client("/mcp", modern=False)
        await old.connect()
        assert (await old.request("tools/list")).result.keys() == {"tools"}


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "5",
        "f:5",
        5,
        [],
        {},
        True,
        "=",
        "é",
        base64.b64encode(b"g:5").decode(),
        base64.b64encode(b"f:-1").decode(),
        base64.b64encode(b"f:x").decode(),
        base64.b64encode(b"f:" + b"9" * 5000).decode(),
        base64.b64encode(b"\xff").decode(),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_cursor_that_was_not_made_here_is_refused(cursor: Any) -> None:
    async with open_rig(ScriptedServer("a")) as rig:
        reply = await rig.client("/mcp").request("tools/list", {"cursor": cursor})
        assert reply.code == -32602
        assert "begin the list anew" in reply.message["error"]["message"]


async def test_cursor_beyond_the_end_shows_nothing_more() -> None:
    async with open_rig(ScriptedServer("a")) as rig:
        cursor = base64.urlsafe_b64encode(b"f:100000").decode()
        result = (await rig.client("/mcp").request("tools/list", {"cursor": cursor})).result
        assert result["tools"] == []
        assert "nextCursor" not in result


async def test_resources_of_one_uri_are_told_apart_and_templates_too() -> None:
    offers: dict[str, Any] = {
        "resources": [{"uri": "file:///x", "name": "x"}],
        "templates": [{"uriTemplate": "file:///{y}", "name": "y"}],
    }
    other = ScriptedServer(
        "b", resources=[*offers["resources"], {"uri": "b:1", "name": "1"}], templates=offers["templates"]
    )
    async with open_rig(ScriptedServer("a", **offers), other) as rig:
        [resources] = await pages(rig, "resources/list", "resources")
        assert [item["uri"] for item in resources] == ["a+file:///x", "b+file:///x", "b:1"]
        [templates] = await pages(rig, "resources/templates/list", "resourceTemplates")
        assert [item["uriTemplate"] for item in templates] == ["a+file:///{y}", "b+file:///{y}"]
        for uri, server in (("a+file:///x", "a"), ("b+file:///x", "b"), ("b:1", "b")):
            rig.forget()
            reply = await rig.client("/mcp").request("resources/read", {"uri": uri})
            assert reply.result["echo"]["uri"] == uri.removeprefix("a+").removeprefix("b+")
            assert len(rig.servers[server].calls) == 1


async def test_server_that_is_down_takes_only_its_own_tools_away() -> None:
    def down(_: Any, __: Any) -> Any:
        raise UpstreamFailed("upstream b: refused the connection", sent=False)

    async with open_rig(ScriptedServer("a"), ScriptedServer("b", answer=down), warm=False) as rig:
        [tools] = await pages(rig, "tools/list", "tools")
        assert [item["name"] for item in tools] == ["a__echo"]
        assert [catalog.name for catalog in await ready_catalogs(rig.hub.exchanges)] == ["a"]
        said = (await rig.client("/mcp").request("server/discover")).result["instructions"]
        assert "Not available now: b." in said


def test_capabilities_are_the_sum_of_what_the_merged_face_delivers() -> None:
    offered: list[dict[str, Any]] = [
        {"tools": {"listChanged": False}, "resources": {"subscribe": True}, "experimental": {"x": {}}, "logging": None},
        {"tools": {"listChanged": True}, "resources": {"subscribe": False, "listChanged": True}, "prompts": 5},
        {"tools": {}, "completions": {}},
    ]
    assert merged_capabilities(offered) == {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "completions": {},
    }
    assert merged_capabilities([]) == {}


async def test_instructions_name_each_server_and_the_missing_ones() -> None:
    async with open_rig(ScriptedServer("a"), ScriptedServer("b")) as rig:
        catalogs = [exchange.catalog for exchange in rig.hub.exchanges.values()]
        catalogs[0].describe({"instructions": "Use me."})
        catalogs[1].describe({"instructions": 5, "capabilities": []})
        said = instructions_of(catalogs, ["c", "d"])
        assert "a: Use me." in said
        assert "b:" not in said
        assert said.endswith("Not available now: c, d.")
        assert MODERN not in said
