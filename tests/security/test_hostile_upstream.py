"""An upstream that lies: whatever it answers, clients get MCP, every call ends once, and policy is not led astray."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from asgi_driver import Exchanged
from gateway_rig import ALLOW_ALL, Client, LoopRig, loop_rig
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import HOSTILE, json_objects, json_values
from scripted_server import MODERN, ScriptedServer, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

SECRET: Final = "s3cr3t-value"
HIDE: Final = """package fulcrum.policies.hide

import rego.v1

redact contains {"pattern": "s3cr3t-[a-z]+", "with": "***"} if input.phase == "result"

deny contains "not this" if {
	input.phase == "result"
	input.result.forbidden
}
"""

WAYS = [
    (path, modern, inspected)
    for path in ("/servers/files/mcp", "/mcp")
    for modern in (True, False)
    for inspected in (False, True)
]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: "-".join(map(str, way)))
def way(request: pytest.FixtureRequest) -> Iterator[tuple[LoopRig, Client, str]]:
    path, modern, inspected = request.param
    server = ScriptedServer(
        "files", tools=[tool("echo")], prompts=[{"name": "p"}], resources=[{"uri": "r", "name": "r"}]
    )
    with loop_rig(server, rego=(ALLOW_ALL, HIDE) if inspected else (ALLOW_ALL,)) as loop:
        client = loop.rig.client(path, modern=modern)
        if not modern:
            loop.run(client.connect())
        yield loop, client, "files__" if path == "/mcp" else ""


def over(*, inspected: bool) -> pytest.MarkDecorator:
    ways = [found for found in WAYS if found[2] is inspected]
    return pytest.mark.parametrize("way", ways, indirect=True, ids=lambda way: "-".join(map(str, way)), scope="module")


numbers = itertools.count()


def answering(loop: LoopRig, reply: MemoryReply | Exception) -> None:
    def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if str((request.document or {}).get("id", "")).startswith("fulcrum-"):
            return None
        if isinstance(reply, Exception):
            raise reply
        return reply

    loop.rig.servers["files"].answer = answer


async def ended(loop: LoopRig, before: int) -> list[Any]:
    """The records since, once everything is settled."""
    await loop.rig.settled()
    return loop.rig.records()[before:]


def ask(loop: LoopRig, client: Client, method: str, params: dict[str, Any]) -> tuple[Exchanged, list[Any]]:
    """One request, and the records of it. What the upstream answers to id "q" it answers to this request."""
    before = len(loop.rig.records())
    number = next(numbers)
    server = loop.rig.servers["files"]
    answer = server.answer
    assert answer is not None

    def renumbered(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        reply = answer(server, request)
        assert reply is None or isinstance(reply, MemoryReply)
        if reply is not None:
            reply.body = reply.body.replace(b'"id":"q"', b'"id":"q%d"' % number)
            for event in reply.stream or ():  # type: ignore[union-attr]
                if isinstance(event, ServerSentEvent):
                    event.data = event.data.replace(b'"id":"q"', b'"id":"q%d"' % number)
        return reply

    server.answer = renumbered
    reply = loop.run(client.request(method, params, id=f"q{number}"))
    return reply, loop.run(ended(loop, before))


def assert_sane(reply: Exchanged) -> None:
    """Nothing of ours broke, and nothing of our inside is told."""
    assert "internal error" not in reply.body.decode(errors="replace")
    assert "Traceback" not in reply.body.decode(errors="replace")


def assert_ended_once(records: list[Any]) -> None:
    kinds = [record["type"].rpartition(".")[2] for record in records]
    assert kinds in (["decided", "finished"], ["finished", "decided"]), kinds


_RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "resultType": st.sampled_from(["complete", "task", "input_required", "", None, 5]),
        "isError": st.booleans() | json_values(),
        "requestState": st.text(max_size=5) | json_values(),
        "task": st.fixed_dictionaries(
            {"taskId": st.just("t") | json_values(), "status": st.just("completed") | json_values()}
        ),
        "taskId": st.just("t") | json_values(),
        "content": json_values(),
        "tools": st.lists(json_values() | st.just({"name": "echo"}), max_size=3) | json_values(),
        "prompts": st.lists(json_values(), max_size=2) | json_values(),
        "resources": st.lists(json_values(), max_size=2) | json_values(),
        "cacheScope": st.just("public") | json_values(),
    },
)
_MESSAGES = (
    st.fixed_dictionaries({"result": _RESULTS | json_values()})
    | st.fixed_dictionaries({"error": json_values()})
    | st.fixed_dictionaries({"method": st.just("notifications/x") | json_values(), "params": json_values()})
    | st.fixed_dictionaries({"method": st.just("sampling/createMessage"), "id": json_values()})
    | json_objects()
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """One message of an upstream, or what it takes for one."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=12) | st.sampled_from(sorted(HOSTILE.values(), key=len)[:-3]))
    message = {"jsonrpc": "2.0", "id": draw(st.just("q") | json_values()), **draw(_MESSAGES)}
    return encode(message)


@st.composite
def replies(draw: st.DrawFn) -> MemoryReply:
    status = draw(st.just(200) | st.sampled_from([202, 204, 301, 400, 401, 403, 404, 405, 429, 500, 503]))
    if draw(st.booleans()):
        return MemoryReply(status, {"content-type": "application/json"}, draw(texts()))
    events: list[ServerSentEvent | Exception] = [
        ServerSentEvent(
            draw(texts()),
            id=draw(
                st.none() | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=3)
            ),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    if draw(st.booleans()):
        events.append(UpstreamFailed("upstream files: broke off", sent=True))
    return MemoryReply(200, {"content-type": "text/event-stream"}, stream=events)


@given(reply=replies(), method=st.sampled_from(["tools/call", "prompts/get", "resources/read", "vendor/x"]))
@settings(max_examples=40, deadline=None)
def test_whatever_an_upstream_answers_the_call_ends_once(
    way: tuple[LoopRig, Client, str], reply: MemoryReply, method: str
) -> None:
    loop, client, prefix = way
    named = {
        "tools/call": {"name": f"{prefix}echo"},
        "prompts/get": {"name": f"{prefix}p"},
        "resources/read": {"uri": "r"},
    }
    answering(loop, reply)
    got, records = ask(loop, client, method, named.get(method, {}))
    assert_sane(got)
    decided = [record for record in records if record["type"].endswith("decided")]
    assert len(decided) == 1
    finished = [record for record in records if record["type"].endswith("finished")]
    assert len(finished) <= 1
    assert reply.closed.is_set() or not reply.streams
    assert loop.rig.forwarded_blindly == 0


@given(reply=replies(), method=st.sampled_from(["tools/list", "prompts/list", "resources/list", "completion/complete"]))
@settings(max_examples=30, deadline=None)
def test_whatever_an_upstream_lists_clients_get_mcp(
    way: tuple[LoopRig, Client, str], reply: MemoryReply, method: str
) -> None:
    loop, client, prefix = way
    answering(loop, reply)
    got, records = ask(loop, client, method, {"ref": {"type": "ref/prompt", "name": f"{prefix}p"}})
    assert_sane(got)
    assert records == []


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ('{"jsonrpc":"2.0","id":"q","result":{"a":"%s"}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{"a":"%s"},"result":{}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{},"result":{"a":"%s"}}', False),
        ('{"jsonrpc":"2.0","id":"q","Result":{"a":"%s"},"result":{}}', False),
        ('{"jsonrpc":"2.0","id":"q","re\u017fult":{"a":"%s"},"result":{}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{},"error":{"data":"%s"}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{"a":"%s","a":1}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{"a":"\\u0073%s"}}', False),
        ('{"jsonrpc":"2.0","id":"q","error":{"code":1,"message":"%s"}}', False),
        ('{"jsonrpc":"2.0","id":"q","error":{"code":1,"message":"m","data":{"x":["%s"]}}}', False),
        ('{"jsonrpc":"2.0","id":"q","result":{"forbidden":true,"a":"%s"}}', False),
    ],
)
@over(inspected=True)
@pytest.mark.parametrize("streamed", [False, True])
def test_judged_answer_cannot_be_read_in_a_second_way(
    way: tuple[LoopRig, Client, str], text: str, leaks: bool, streamed: bool
) -> None:
    loop, client, prefix = way
    secret = SECRET[1:] if "\\u0073" in text else SECRET
    body = (text % secret).encode()
    kind = "text/event-stream" if streamed else "application/json"
    reply = MemoryReply(200, {"content-type": kind}, body, [ServerSentEvent(body)] if streamed else None)
    answering(loop, reply)
    got, records = ask(loop, client, "tools/call", {"name": f"{prefix}echo"})
    assert_sane(got)
    assert (SECRET in got.body.decode()) is leaks
    assert "3cr3t-value" not in got.body.decode()
    assert_ended_once(records)


@over(inspected=True)
def test_notifications_before_a_judged_answer_are_held_to_the_same(way: tuple[LoopRig, Client, str]) -> None:
    loop, client, prefix = way
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": SECRET}}
    done = {"jsonrpc": "2.0", "id": "q", "result": {"a": SECRET}}
    events = [ServerSentEvent(encode(note)), ServerSentEvent(encode(done))]
    answering(loop, MemoryReply(200, {"content-type": "text/event-stream"}, stream=events))
    got, _ = ask(loop, client, "tools/call", {"name": f"{prefix}echo"})
    assert SECRET not in got.body.decode()
    assert [event.message for event in got.events if event.data][-1]["result"] == {"a": "***"}


@pytest.mark.parametrize("status", [401, 403])
def test_challenge_of_an_upstream_never_reaches_the_client(way: tuple[LoopRig, Client, str], status: int) -> None:
    loop, client, prefix = way
    headers = {"content-type": "application/json", "www-authenticate": "Bearer x", "set-cookie": "a=b", "server": "s"}
    answering(loop, MemoryReply(status, headers, b'{"error":"who are you"}'))
    got, records = ask(loop, client, "tools/call", {"name": f"{prefix}echo"})
    assert got.status == 200
    assert got.result["isError"] is True
    assert {name for name, _ in got.headers} & {b"www-authenticate", b"set-cookie", b"server"} == set()
    assert_ended_once(records)


@pytest.mark.parametrize("sent", [True, False])
def test_upstream_that_fails_is_a_tool_error_that_names_it(way: tuple[LoopRig, Client, str], sent: bool) -> None:
    loop, client, prefix = way
    answering(loop, UpstreamFailed("upstream files: refused the connection", sent=sent))
    got, records = ask(loop, client, "tools/call", {"name": f"{prefix}echo"})
    assert got.result["isError"] is True
    assert "upstream files" in got.result["content"][0]["text"]
    assert_ended_once(records)
    finished = next(record for record in records if record["type"].endswith("finished"))
    assert finished["data"]["outcome"] == ("outcome_unknown" if sent else "error")


def test_hostile_text_is_an_answer_to_nobody(way: tuple[LoopRig, Client, str]) -> None:
    loop, client, prefix = way
    for text in (b"", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"id":"q"}', b'{"id":"q","result":', b"<html>"):
        answering(loop, MemoryReply(200, {"content-type": "application/json"}, text))
        got, records = ask(loop, client, "tools/call", {"name": f"{prefix}echo"})
        assert got.result["isError"] is True, text
        assert_ended_once(records)
        assert str(json.loads(got.body)["id"]).startswith("q")
        assert MODERN not in got.body.decode()
