"""The list law: what is not listed cannot be called; what is listed is denied only by guarded rules or the ledger."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from gateway_rig import PRINCIPAL, engine_of, open_rig
from list_matrix import called, listed, matrix_servers, people, plain_policies, random_policy, violations
from scripted_server import ScriptedServer, tool

from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Context, Principal, Tool
from fulcrum_mcp.gateway.govern import Governor
from fulcrum_mcp.gateway.listing import ListLaw
from fulcrum_mcp.gateway.snapshot import Snapshot

pytestmark = pytest.mark.anyio

FACES = [
    pytest.param("/mcp", True, id="merged-modern"),
    pytest.param("/mcp", False, id="merged-handshake"),
    pytest.param("/servers/files/mcp", True, id="single-modern"),
    pytest.param("/servers/files/mcp", False, id="single-handshake"),
]


@pytest.mark.parametrize(("path", "modern"), FACES)
async def test_who_sees_a_thing_can_call_it_and_who_does_not_cannot(path: str, modern: bool) -> None:
    principals = people(8)
    async with open_rig(*matrix_servers(12), principals=principals) as rig:
        policies = [random_policy(seed) for seed in range(10)]
        assert [cell async for cell in violations(rig, path, principals, policies, modern=modern)] == []
        assert rig.forwarded_blindly == 0


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("path", "modern"), FACES)
async def test_the_same_over_a_large_matrix(path: str, modern: bool) -> None:
    principals = people(20)
    async with open_rig(*matrix_servers(10), principals=principals) as rig:
        policies = [random_policy(seed) for seed in range(1000, 1050)]
        assert [cell async for cell in violations(rig, path, principals, policies, modern=modern)] == []


async def finds_a_wrong_cell() -> bool:
    """True at the first wrong cell of a small matrix."""
    principals = people(6)
    async with open_rig(*matrix_servers(4), principals=principals) as rig:
        async for _ in violations(rig, "/mcp", principals, plain_policies(), modern=True):
            return True
    return False


async def test_small_matrix_has_no_wrong_cell() -> None:
    assert not await finds_a_wrong_cell()


async def test_matrix_catches_a_law_that_forgets_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[Any, bool] = {}
    monkeypatch.setattr(ListLaw, "_of", lambda _law, _principal: shared)
    assert await finds_a_wrong_cell()


@pytest.mark.parametrize("forgotten", ["revision", "client", "protocol", "server", "name", "annotations"])
async def test_matrix_catches_a_law_that_forgets_what_is_asked(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ListLaw.tool

    async def forgetful(
        law: ListLaw, snapshot: Snapshot, principal: Principal, context: Context, server: str, tool: Tool
    ) -> bool:
        if forgotten == "revision":
            snapshot = replace(snapshot, revision="any")
        elif forgotten in ("client", "protocol"):
            context = replace(context, **{forgotten: ""})
        elif forgotten == "server":
            server = ""
        else:
            tool = replace(tool, name="t0") if forgotten == "name" else replace(tool, annotations={})
        return await original(law, snapshot, principal, context, server, tool)

    monkeypatch.setattr(ListLaw, "tool", forgetful)
    assert await finds_a_wrong_cell()


async def test_matrix_catches_a_list_that_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(*_: Any) -> bool:
        return True

    monkeypatch.setattr(ListLaw, "_ask", blind)
    assert await finds_a_wrong_cell()


CALL_ONLY = """package fulcrum.policies.late

import rego.v1

allow if input.phase == "call"

allow if {
	input.phase == "list"
	input.tool.name == "shown"
}
"""


def two_tools() -> ScriptedServer:
    both: list[dict[str, Any]] = [{"name": "shown"}, {"name": "hidden"}]
    return ScriptedServer(
        "files",
        tools=[tool("shown"), tool("hidden")],
        prompts=both,
        resources=[{"uri": "file:///hidden", "name": "hidden"}],
        templates=[{"uriTemplate": "file:///{x}", "name": "t"}],
    )


@pytest.mark.parametrize(("path", "modern"), FACES)
async def test_what_is_not_listed_cannot_be_called_even_where_the_call_alone_were_allowed(
    path: str, modern: bool
) -> None:
    async with open_rig(two_tools(), rego=[CALL_ONLY]) as rig:
        speaker = rig.client(path, modern=modern)
        if not modern:
            await speaker.connect()
        prefix = "files__" if path == "/mcp" else ""
        assert await listed(speaker, "tools/list") == [f"{prefix}shown"]
        assert await listed(speaker, "prompts/list") == []
        assert await listed(speaker, "resources/list") == []
        rig.forget()
        assert await called(speaker, "tools/list", f"{prefix}shown") == "ok"
        for name in ("hidden", "unheard-of", "Shown"):
            assert (await called(speaker, "tools/list", f"{prefix}{name}")).startswith("deny ")
            assert await called(speaker, "prompts/list", f"{prefix}{name}") == "deny not_listed"
        for uri in ("file:///hidden", "file:///other"):
            assert await called(speaker, "resources/list", uri) == "deny not_listed"
        assert [message["method"] for message in rig.servers["files"].calls] == ["tools/call"]


async def test_that_check_catches_a_governor_that_does_not_ask_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> None:
        return None

    monkeypatch.setattr(Governor, "_refusal", never)
    async with open_rig(two_tools(), rego=[CALL_ONLY]) as rig:
        assert await called(rig.client("/mcp"), "tools/list", "files__hidden") == "ok"


GUARDED = """package fulcrum.policies.guarded

import rego.v1

allow := true

deny contains {"code": "no_etc", "message": "not there"} if {
	input.phase == "call"
	startswith(input.arguments.path, "/etc")
}
"""


@pytest.mark.parametrize(("path", "modern"), FACES)
async def test_listed_tool_is_denied_by_guarded_rules_and_the_ledger_only(path: str, modern: bool) -> None:
    budget = Budget("b1", PRINCIPAL.tenant, "two", Scope("agent"), {"calls": 2})
    async with open_rig(two_tools(), rego=[GUARDED], budgets=[budget]) as rig:
        speaker = rig.client(path, modern=modern)
        if not modern:
            await speaker.connect()
        names = await listed(speaker, "tools/list")
        assert len(names) == 2
        assert await called(speaker, "tools/list", names[0], arguments={"path": "/etc/x"}) == "deny no_etc"
        assert [await called(speaker, "tools/list", name, arguments={"path": "/srv"}) for name in names] == ["ok", "ok"]
        assert await called(speaker, "tools/list", names[0], arguments={}) == "deny budget_exceeded"
        assert await listed(speaker, "tools/list") == names


async def test_list_of_another_snapshot_does_not_linger() -> None:
    async with open_rig(two_tools(), rego=[CALL_ONLY]) as rig:
        speaker = rig.client("/servers/files/mcp")
        assert await listed(speaker, "tools/list") == ["shown"]
        rig.use(engine_of(GUARDED))
        assert await listed(speaker, "tools/list") == ["shown", "hidden"]
        assert await called(speaker, "tools/list", "hidden") == "ok"


async def test_of_two_tools_of_one_name_the_first_is_shown_and_judged() -> None:
    twice: list[Mapping[str, Any]] = [
        tool("t", annotations={"readOnlyHint": True}),
        tool("t", annotations={"readOnlyHint": False}),
    ]
    policy = GUARDED.replace("allow := true", "allow if input.tool.annotations.readOnlyHint")
    async with open_rig(ScriptedServer("files", tools=twice), rego=[policy]) as rig:
        for path, name in (("/servers/files/mcp", "t"), ("/mcp", "files__t")):
            assert await listed(rig.client(path), "tools/list") == [name]
            assert await called(rig.client(path), "tools/list", name) == "ok"
        rig.servers["files"].offers["tools"] = twice[::-1]
        assert await listed(rig.client("/servers/files/mcp"), "tools/list") == []
        assert await called(rig.client("/servers/files/mcp"), "tools/list", "t") == "deny not_listed"


MALFORMED: list[Any] = [
    {"name": 5},
    {},
    {"uri": None},
    {"uriTemplate": "x"},
    {"name": None, "uri": 5, "uriTemplate": []},
]


@pytest.mark.parametrize("path", ["/servers/files/mcp", "/mcp"])
async def test_malformed_descriptors_harm_no_others(path: str) -> None:
    server = ScriptedServer(
        "files",
        tools=[*MALFORMED[:2], tool("good"), {"name": "bare", "annotations": [], "title": 5}],
        prompts=[*MALFORMED, {"name": "good"}],
        resources=[*MALFORMED, {"uri": "file:///good", "name": "g"}],
        templates=[*MALFORMED, {"uriTemplate": "file:///{x}", "name": "g"}],
    )
    async with open_rig(server, ScriptedServer("web")) as rig:
        speaker = rig.client(path)
        prefix = "files__" if path == "/mcp" else ""
        assert [name for name in await listed(speaker, "tools/list") if "web" not in name] == [
            f"{prefix}good",
            f"{prefix}bare",
        ]
        assert await listed(speaker, "prompts/list") == [f"{prefix}good"]
        assert await listed(speaker, "resources/list") == ["file:///good"]
        templates = (await speaker.request("resources/templates/list")).result["resourceTemplates"]
        assert [item["uriTemplate"] for item in templates] == ["x", "file:///{x}"]
