"""No JSON value is lost or changed between client and upstream, either way, in both eras and on both faces."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from asgi_driver import Exchanged
from gateway_rig import ALLOW_ALL, Client, LoopRig, loop_rig
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_values import JsonValue, json_objects, json_values, same_json
from scripted_server import ScriptedServer, json_reply, sse_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.respond import Answered, Responder
from fulcrum_mcp.gateway.wire import Message, Peek, parse_message, result_message
from fulcrum_mcp.ports import UpstreamRequest

INSPECT: Final = """package fulcrum.policies.inspect

import rego.v1

deny contains "never" if {
	input.phase == "result"
	input.result.never == "sent"
}

redact contains "/secret" if input.phase == "result"
"""

Method = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Wiring:
    """One way through the gateway, kept open for many examples."""

    loop: LoopRig
    client: Client
    merged: bool

    @property
    def server(self) -> ScriptedServer:
        return self.loop.rig.servers["files"]

    def send(self, message: Mapping[str, JsonValue], reply: MemoryReply | None = None) -> Exchanged:
        """This message through the gateway, this reply back (for the client's message only)."""

        def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
            document = request.document or {}
            return None if str(document.get("id", "")).startswith("fulcrum-") else reply

        self.loop.rig.forget()
        self.server.answer = answer
        return self.loop.run(self.client.send(message))

    def request(self, method: Method, request_id: JsonValue, more: JsonValue, **members: JsonValue) -> dict[str, Any]:
        """A request as this client would write it, with unknown members in it and in its params."""
        name, params = method
        named = {key: self.shown(value) if key == "name" else value for key, value in params.items()}
        whole = {**{f"vendor/{key}": value for key, value in more.items()}, **named}
        unknown = {f"x-{key}": value for key, value in members.items()}
        return {"jsonrpc": "2.0", "id": request_id, "method": name, "params": self.client.params(whole), **unknown}

    def shown(self, name: str) -> str:
        return f"files__{name}" if self.merged else name

    def as_received(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What the upstream is to get of a message."""
        if not self.merged or "name" not in message["params"]:
            return dict(message)
        return {**message, "params": {**message["params"], "name": message["params"]["name"].removeprefix("files__")}}


Way = tuple[str, bool, bool]
"""Path, modern era, results are judged."""

WAYS: Final[list[Way]] = [
    (path, modern, inspected)
    for path in ("/servers/files/mcp", "/mcp")
    for modern in (True, False)
    for inspected in (False, True)
]


def _name(way: Way) -> str:
    path, modern, inspected = way
    return f"{'merged' if path == '/mcp' else 'single'}-{'modern' if modern else 'handshake'}{'-inspected' * inspected}"


def over(*ways: Way) -> pytest.MarkDecorator:
    """Run a test over some of the ways only."""
    return pytest.mark.parametrize("way", ways, indirect=True, ids=_name, scope="module")


@pytest.fixture(scope="module", params=WAYS, ids=_name)
def way(request: pytest.FixtureRequest) -> Iterator[Wiring]:
    path, modern, inspected = request.param
    server = ScriptedServer(
        "files", tools=[tool("echo")], prompts=[{"name": "ask"}], resources=[{"uri": "file:///a", "name": "a"}]
    )
    with loop_rig(server, rego=(ALLOW_ALL, INSPECT) if inspected else (ALLOW_ALL,)) as loop:
        client = loop.rig.client(path, modern=modern)
        if not modern:
            loop.run(client.connect())
        yield Wiring(loop, client, path == "/mcp")


ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.integers(-(2**70), 2**70)


@st.composite
def methods(draw: st.DrawFn) -> Method:
    """Governed, known and unknown ones, with arguments where there are some."""
    given_arguments = draw(json_objects())
    found: list[Method] = [
        ("tools/call", {"name": "echo", "arguments": given_arguments}),
        ("tools/call", {"name": "echo"}),
        ("tools/call", {"name": "echo", "arguments": None}),
        ("prompts/get", {"name": "ask", "arguments": given_arguments}),
        ("resources/read", {"uri": "file:///a"}),
        ("vendor/unknown", {"x": given_arguments}),
        ("tools/unknown", {}),
    ]
    return draw(st.sampled_from(found))


def assert_same(left: JsonValue, right: JsonValue) -> None:
    assert same_json(left, right), (left, right)


@given(method=methods(), request_id=ids, more=json_objects(), beside=json_values(), meta=json_objects())
@settings(max_examples=25, deadline=None)
def test_request_reaches_the_upstream_as_it_was_sent(
    way: Wiring, method: Method, request_id: JsonValue, more: JsonValue, beside: JsonValue, meta: JsonValue
) -> None:
    message = way.request(method, request_id, more, beside=beside)
    message["params"]["_meta"] = {
        **{f"v/{key}": value for key, value in meta.items()},
        **message["params"].get("_meta", {}),
    }
    reply = way.send(message)
    assert reply.status == 200
    [received] = [json.loads(text) for text in way.server.received]
    assert_same(received, way.as_received(message))
    assert_same(reply.result["echo"], received["params"])
    assert_same(reply.message["id"], request_id)
    assert way.loop.rig.forwarded_blindly == 0


@given(
    method=methods(),
    request_id=ids,
    result=json_objects(20),
    beside=json_values(),
    events=st.lists(json_objects(), max_size=3),
    streamed=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_result_and_its_notifications_reach_the_client_as_they_were_sent(
    way: Wiring,
    method: Method,
    request_id: JsonValue,
    result: JsonValue,
    beside: JsonValue,
    events: list[JsonValue],
    streamed: bool,
) -> None:
    answer = {"jsonrpc": "2.0", "id": request_id, "result": result, "x-beside": beside}
    notifications = [{"jsonrpc": "2.0", "method": "notifications/vendor", "params": item, "x": item} for item in events]
    reply = way.send(
        way.request(method, request_id, {}),
        sse_reply(*notifications, answer) if streamed else json_reply(answer),
    )
    assert reply.status == 200
    assert_same(reply.message, answer)
    if streamed:
        assert_same([event.message for event in reply.events if event.data], [*notifications, answer])


@given(
    method=methods(),
    request_id=ids,
    error=json_objects(),
    data=json_values(),
    code=st.integers(-40_000, 2**40),
    streamed=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_error_reaches_the_client_as_it_was_sent(
    way: Wiring, method: Method, request_id: JsonValue, error: JsonValue, data: JsonValue, code: int, streamed: bool
) -> None:
    whole = {**{f"x-{key}": value for key, value in error.items()}, "code": code, "message": "m", "data": data}
    answer = {"jsonrpc": "2.0", "id": request_id, "error": whole, "x-beside": data}
    reply = way.send(way.request(method, request_id, {}), sse_reply(answer) if streamed else json_reply(answer))
    assert_same(reply.message, answer)


@given(method=methods(), result=json_values())
@settings(max_examples=15, deadline=None)
def test_result_that_is_no_object_reaches_the_client_too(way: Wiring, method: Method, result: JsonValue) -> None:
    answer = {"jsonrpc": "2.0", "id": 7, "result": result}
    reply = way.send(way.request(method, 7, {}), json_reply(answer))
    assert_same(reply.message, answer)


@over(*(way for way in WAYS if way[:2] != ("/mcp", True)))  # there nothing says which upstream it is for: dropped
@given(params=json_objects(), beside=json_values())
@settings(max_examples=20, deadline=None)
def test_notification_reaches_the_upstream_as_it_was_sent(way: Wiring, params: JsonValue, beside: JsonValue) -> None:
    message = {"jsonrpc": "2.0", "method": "notifications/vendor", "params": params, "x-beside": beside}
    assert way.send(message).status == 202
    [received] = [json.loads(text) for text in way.server.received]
    assert_same(received, message)


@over(*(way for way in WAYS if not way[1]))  # the modern era has no requests from servers
@given(request_id=ids, params=json_objects(), beside=json_values(), result=json_values())
@settings(max_examples=20, deadline=None)
@example(request_id="a:b", params={}, beside=None, result={})
@example(request_id=2**70, params={}, beside=None, result={})
def test_question_of_the_server_and_its_answer_arrive_as_they_were_sent(
    way: Wiring, request_id: JsonValue, params: JsonValue, beside: JsonValue, result: JsonValue
) -> None:
    question = {"jsonrpc": "2.0", "id": request_id, "method": "vendor/ask", "params": params, "x-beside": beside}
    done = {"jsonrpc": "2.0", "id": 1, "result": {}}
    reply = way.send(way.request(("tools/call", {"name": "echo"}), 1, {}), sse_reply(question, done))
    asked = next(event.message for event in reply.events if event.data)
    assert_same({**asked, "id": request_id}, question)
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": result, "x-beside": beside}
    assert way.send(answer).status == 202
    [received] = [json.loads(text) for text in way.server.received]
    assert_same(received, {**answer, "id": request_id})


@given(more=json_objects(), beside=json_objects())
@settings(max_examples=15, deadline=None)
def test_descriptors_keep_their_unknown_members(way: Wiring, more: JsonValue, beside: JsonValue) -> None:
    descriptor = tool("echo", **{f"x-{key}": value for key, value in more.items()})
    result = {"tools": [descriptor], **{f"y-{key}": value for key, value in beside.items()}}
    way.server.offers["tools"] = [descriptor]
    reply = way.send(way.request(("tools/list", {}), 1, {}), json_reply({"jsonrpc": "2.0", "id": 1, "result": result}))
    if way.merged:
        way.loop.run(way.loop.rig.hub.exchanges["files"].catalog.refresh())
        reply = way.send(way.request(("tools/list", {}), 1, {}))
        assert_same(reply.result["tools"], [{**descriptor, "name": "files__echo"}])
    else:
        assert_same(reply.result, result)


# What a pointer names is redacted wherever else the result says it: these say nothing that the rest says.
secrets = st.recursive(
    st.integers()
    | st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map("only-here:{}".format),
    lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"only-here": inner}),
    max_leaves=4,
)


@over(*(way for way in WAYS if way[2]))
@given(secret=secrets, rest=json_objects(), streamed=st.booleans())
@settings(max_examples=15, deadline=None)
def test_redaction_changes_what_it_names_and_nothing_else(
    way: Wiring, secret: JsonValue, rest: JsonValue, streamed: bool
) -> None:
    kept = {key: value for key, value in rest.items() if key != "secret"}
    answer = {"jsonrpc": "2.0", "id": 1, "result": {**kept, "secret": secret}, "x": rest}
    message = way.request(("tools/call", {"name": "echo"}), 1, {})
    reply = way.send(message, sse_reply(answer) if streamed else json_reply(answer))
    assert_same(reply.message, {**answer, "result": {**kept, "secret": "[redacted]"}})


def test_own_names_in_meta_are_taken_out_and_nothing_else(way: Wiring) -> None:
    mine = {"dev.fulcrum/envelope": "e1", "dev.fulcrum/other": [1], "vendor/x": 2**70, "progressToken": 1.5}
    message = way.request(("tools/call", {"name": "echo"}), 1, {})
    message["params"]["_meta"] = {**message["params"].get("_meta", {}), **mine}
    way.send(message)
    [received] = [json.loads(text) for text in way.server.received]
    kept = {key: value for key, value in message["params"]["_meta"].items() if not key.startswith("dev.fulcrum/")}
    assert_same(received["params"]["_meta"], kept)
    assert way.loop.rig.engine.documents("call")[-1]["context"]["envelope"] == "e1"


def test_these_checks_catch_a_gateway_that_rounds(way: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounding(text: bytes, max_depth: int) -> Message:
        return parse_message(
            json.dumps(json.loads(text, parse_int=lambda digits: int(float(digits)))).encode(), max_depth
        )

    monkeypatch.setattr("fulcrum_mcp.api.mcp.endpoint.parse_message", rounding)
    message = way.request(("tools/call", {"name": "echo", "arguments": {"n": 2**70 + 1}}), 1, {})
    way.send(message)
    [received] = [json.loads(text) for text in way.server.received]
    with pytest.raises(AssertionError):
        assert_same(received, way.as_received(message))


def test_these_checks_catch_a_gateway_that_drops_what_it_does_not_know(
    way: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropping(request_id: int, text: bytes) -> bytes:
        result = json.loads(text)["result"]
        return result_message(request_id, {"content": result["content"]})

    answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "x": 1}}
    original = Responder.answer

    async def drops(self: Responder, pending: Pending, catalog: Catalog, text: bytes, peek: Peek) -> Answered:
        await original(self, pending, catalog, text, peek)
        return Answered(dropping(1, text))

    monkeypatch.setattr(Responder, "answer", drops)
    reply = way.send(way.request(("tools/call", {"name": "echo"}), 1, {}), json_reply(answer))
    with pytest.raises(AssertionError):
        assert_same(reply.message, answer)
