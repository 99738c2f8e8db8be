import asyncio
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_values import json_objects, json_values
from scripted_server import HANDSHAKE, MODERN, ScriptedServer, json_reply, sse_reply, tool
from structlog.testing import capture_logs

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.catalog import Catalog, ToolEntry, descriptor_pin, tool_entry
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio


async def read(server: ScriptedServer) -> Catalog:
    catalog = Catalog(server)
    await catalog.refresh()
    return catalog


@pytest.mark.parametrize(("eras", "modern"), [((MODERN,), True), ((HANDSHAKE,), False), ((MODERN, HANDSHAKE), True)])
async def test_catalog_is_read_in_the_era_that_the_upstream_speaks(eras: tuple[str, ...], modern: bool) -> None:
    server = ScriptedServer("s", tools=[tool("a"), tool("b")], prompts=[{"name": "p"}], eras=eras)
    catalog = await read(server)
    assert (catalog.ready, catalog.modern, catalog.failure) == (True, modern, None)
    assert list(catalog.tools) == ["a", "b"]
    assert catalog.lists["prompts"] == [{"name": "p"}]
    assert all(request.message == b"" or b'"tools/call"' not in request.message for request in server.requests)


async def test_session_of_its_own_is_ended() -> None:
    server = ScriptedServer("s", eras=(HANDSHAKE,))
    await read(server)
    assert server.requests[-1].verb == "DELETE"
    assert (b"mcp-session-id", b"s-1") in server.requests[-1].headers


async def test_pages_are_read_to_their_end_and_not_round_in_circles() -> None:
    pages = {None: (["a"], "1"), "1": (["b"], "2"), "2": (["c"], "2")}

    def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/list":
            return None
        names, following = pages[document["params"].get("cursor")]
        result = {"resultType": "complete", "tools": [tool(name) for name in names], "nextCursor": following}
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})

    assert list((await read(ScriptedServer("s", answer=answer))).tools) == ["a", "b", "c"]


async def test_endless_pages_have_an_end() -> None:
    def answer(server: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/list":
            return None
        result = {"tools": [tool(f"t{len(server.requests)}")], "nextCursor": str(len(server.requests))}
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})

    server = ScriptedServer("s", answer=answer)
    assert (await read(server)).ready
    assert len(server.requests) < 120


async def test_unknown_name_is_looked_for_once_for_all_who_ask() -> None:
    server = ScriptedServer("s")
    catalog = await read(server)
    server.requests.clear()
    assert await asyncio.gather(*(catalog.tool(f"new{number}") for number in range(20))) == [None] * 20
    assert sum(b"tools/list" in request.message for request in server.requests) == 1
    assert await catalog.tool("new") is None
    assert sum(b"tools/list" in request.message for request in server.requests) == 1


async def test_new_tool_is_found_when_it_is_called() -> None:
    server = ScriptedServer("s")
    catalog = await read(server)
    server.offers["tools"].append(tool("new"))
    found = await catalog.tool("new")
    assert found is not None
    assert found.tool.name == "new"


async def test_tool_that_is_gone_after_a_refresh_is_not_known() -> None:
    server = ScriptedServer("s", tools=[tool("a"), tool("b")])
    catalog = await read(server)
    server.offers["tools"] = [tool("b")]
    await catalog.refresh()
    assert list(catalog.tools) == ["b"]


async def test_what_one_session_sees_takes_nothing_from_the_others() -> None:
    server = ScriptedServer("s", tools=[tool("a")])
    catalog = await read(server)
    server.offers["tools"] = [tool("mine")]
    await catalog.refresh(Via(HANDSHAKE, "s-9"))
    assert set(catalog.tools) == {"a", "mine"}
    assert (b"mcp-session-id", b"s-9") in server.requests[-1].headers


async def test_what_a_session_is_shown_is_what_its_own_calls_are_judged_by() -> None:
    catalog = await read(ScriptedServer("s", tools=[tool("a")]))
    changed = tool("a", annotations={"destructiveHint": True})
    mine: dict[str, ToolEntry] = {}
    [entry] = catalog.learn([changed], mine)
    assert entry is not None
    assert mine["a"] is entry
    assert entry.tool.annotations == {"destructiveHint": True}
    known = await catalog.tool("a")
    assert known is not None
    assert known.tool.annotations == {}
    assert catalog.learn([changed]) == [known]
    assert catalog.learn([changed], mine)[0] is entry


async def test_failing_upstream_is_said_and_the_old_tools_stay() -> None:
    server = ScriptedServer("s")
    catalog = await read(server)

    def down(_: ScriptedServer, __: UpstreamRequest) -> MemoryReply:
        raise UpstreamFailed("upstream s: refused the connection", sent=False)

    server.answer = down
    with capture_logs() as logs:
        await catalog.refresh()
        await catalog.refresh()
        assert catalog.failure == "upstream s: refused the connection"
        assert list(catalog.tools) == ["echo"]
        server.answer = None
        await catalog.refresh()
        await catalog.refresh()
    assert catalog.failure is None
    assert [each["event"] for each in logs] == ["catalog not refreshed", "catalog refreshed again"]


def _as_reply(said: Any, document: Any, streamed: bool) -> MemoryReply:
    if isinstance(said, bytes):
        return json_reply(said)
    message = {"jsonrpc": "2.0", "id": document.get("id"), **said}
    return sse_reply(message) if streamed else json_reply(message)


_LISTS = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.lists(json_objects() | json_values() | st.just({"name": "a"}), max_size=3) | json_values(),
        "prompts": json_values(),
        "supportedVersions": st.just([MODERN]) | json_values(),
        "protocolVersion": st.just(HANDSHAKE) | json_values(),
        "capabilities": st.just({"tools": {}, "prompts": {}}) | json_values(),
        "instructions": json_values(),
        "ttlMs": json_values() | st.sampled_from([-1, 10**400, 1e300]),
        "nextCursor": st.just("x") | json_values(),
    },
)
_SAID = (
    st.fixed_dictionaries({"result": _LISTS})
    | st.fixed_dictionaries({"result": json_values()})
    | st.fixed_dictionaries({"error": json_values()})
    | st.fixed_dictionaries({"error": st.fixed_dictionaries({"code": st.integers(), "data": json_values()})})
    | json_objects()
    | st.binary(max_size=20)
)


@given(st.lists(_SAID, min_size=1, max_size=5), st.booleans(), st.integers(200, 599))
@settings(max_examples=150, deadline=None)
@example(
    [{"result": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "tools": [], "ttlMs": 10**400}}],
    False,
    200,
)
def test_hostile_upstream_never_breaks_its_catalog(said: list[Any], streamed: bool, status: int) -> None:
    replies = iter(said * 40)

    def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply:
        reply = _as_reply(next(replies, said[0]), request.document or {}, streamed)
        reply.status = status
        return reply

    async def run() -> None:
        catalog = Catalog(ScriptedServer("s", answer=answer))
        async with asyncio.timeout(10):
            await catalog.refresh()
        assert catalog.ready or catalog.failure
        assert all(entry.tool.name == name for name, entry in catalog.tools.items())
        assert catalog.failure is None or "Traceback" not in catalog.failure

    asyncio.run(run())


@given(json_objects())
def test_pin_depends_on_every_value_and_on_no_order(more: Any) -> None:
    descriptor = {**more, "name": "a"}
    backwards = dict(reversed(descriptor.items()))
    assert descriptor_pin(descriptor) == descriptor_pin(backwards)
    assert descriptor_pin({**descriptor, "x-new": 1}) != descriptor_pin(descriptor)
    assert descriptor_pin({**descriptor, "name": "b"}) != descriptor_pin(descriptor)


@pytest.mark.parametrize("descriptor", [{}, {"name": None}, {"name": 5}, {"name": ["a"]}])
def test_descriptor_without_a_name_is_no_tool(descriptor: Any) -> None:
    assert tool_entry(descriptor) is None


def test_entry_takes_only_what_has_the_right_type() -> None:
    entry = tool_entry({"name": "a", "title": 5, "annotations": [1], "inputSchema": "x"})
    assert entry is not None
    assert (entry.tool.title, entry.tool.annotations, entry.param_headers, entry.structured) == (None, {}, (), True)
    assert tool_entry({"name": "a", "outputSchema": {}}).structured is False  # type: ignore[union-attr]


async def test_own_requests_carry_nothing_of_a_client() -> None:
    server = ScriptedServer("s")
    await read(server)
    for request in server.requests:
        assert request.principal is None
        assert {name for name, _ in request.headers} <= {b"accept", b"mcp-protocol-version", b"mcp-method"}
        assert json.loads(request.message)["id"].startswith("fulcrum-")
