"""What policy saw is what the upstream received, whatever is sent: hostile JSON, lying headers, calls in disguise."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from asgi_driver import Exchanged
from gateway_rig import LoopRig, loop_rig
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import HOSTILE, json_objects, same_json, strict_loads
from msgspec import Raw
from scripted_server import MODERN, ScriptedServer, tool

from fulcrum_mcp.gateway.param_headers import encode_header
from fulcrum_mcp.gateway.wire import Message, encode

PATHS: Final = ("/servers/files/mcp", "/mcp")
ERAS: Final = (True, False)
PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS = -32700, -32600, -32602
HEADER_MISMATCH, UNSUPPORTED = -32020, -32022
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
    },
}


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopRig]:
    server = ScriptedServer("files", tools=[tool("echo"), tool("routed", inputSchema=SCHEMA)])
    with loop_rig(server) as found:
        yield found


def sent(loop: LoopRig, path: str, body: bytes, *headers: tuple[str, str]) -> Exchanged:
    """What comes back; nothing is kept of what came before."""
    loop.rig.forget()
    return loop.run(loop.rig.post(path, body, *headers))


def untouched(loop: LoopRig) -> None:
    """No upstream was called, and nothing was decided."""
    assert loop.rig.servers["files"].requests == []
    assert [phase for phase, _ in loop.rig.engine.asked if phase == "call"] == []


def refused(loop: LoopRig, reply: Exchanged, *codes: int, status: int = 400) -> None:
    assert (reply.status, reply.code) in {(status, code) for code in codes}, reply.body
    untouched(loop)
    assert_quiet(reply)


def assert_quiet(reply: Exchanged) -> None:
    """A message for the client: short, and without anything of our inside."""
    text = reply.body.decode()
    assert "Traceback" not in text
    assert "internal error" not in text
    assert ".py" not in text
    assert len(text) < 1000


def headers_of(modern: bool, method: str = "tools/call", name: str | None = "echo") -> list[tuple[str, str]]:
    if not modern:
        return [("mcp-protocol-version", "2025-11-25")]
    found = [("mcp-protocol-version", MODERN), ("mcp-method", method)]
    return found if name is None else [*found, ("mcp-name", encode_header(name))]


def shown(path: str, name: str) -> str:
    return f"files__{name}" if path == "/mcp" else name


def call(path: str, modern: bool, name: str = "echo", arguments: Any = None, **members: Any) -> dict[str, Any]:
    params = {"name": shown(path, name), "arguments": {} if arguments is None else arguments}
    if modern:
        params["_meta"] = META
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params, **members}


every_face = pytest.mark.parametrize("path", PATHS)
every_era = pytest.mark.parametrize("modern", ERAS)


@every_face
@every_era
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_never_reaches_policy_or_upstream(loop: LoopRig, path: str, modern: bool, text: bytes) -> None:
    whole = encode(call(path, modern, arguments=Raw(text)))
    for body in (text, whole):
        reply = sent(loop, path, body, *headers_of(modern, name=shown(path, "echo")))
        refused(loop, reply, PARSE_ERROR, INVALID_REQUEST)


@every_face
@every_era
@pytest.mark.parametrize(
    "twin",
    [
        {"Method": "tools/list"},
        {"METHOD": "tools/list"},
        {"Params": {}},
        {"param\u017f": {"name": "other"}},
        {"ID": 2},
        {"JsonRpc": "2.0"},
        {"result": {}},
        {"Result": {}},
        {"error": {"code": 1, "message": ""}},
    ],
)
def test_twin_of_an_envelope_member_is_refused(loop: LoopRig, path: str, modern: bool, twin: dict[str, Any]) -> None:
    reply = sent(loop, path, encode(call(path, modern, **twin)), *headers_of(modern, name=shown(path, "echo")))
    refused(loop, reply, INVALID_REQUEST)


@every_face
@every_era
@pytest.mark.parametrize(
    "name", ["Name", "NAME", "Arguments", "argument\u017f", "ta\u017f\u212a", "_META", "Uri", "REF"]
)
def test_twin_of_a_params_member_is_refused(loop: LoopRig, path: str, modern: bool, name: str) -> None:
    message = call(path, modern)
    message["params"][name] = "other"
    reply = sent(loop, path, encode(message), *headers_of(modern, name=shown(path, "echo")))
    refused(loop, reply, INVALID_REQUEST)


@every_face
@every_era
def test_batch_is_refused_in_every_version(loop: LoopRig, path: str, modern: bool) -> None:
    for batch in ([call(path, modern)], [call(path, modern), call(path, modern, id=2)], []):
        reply = sent(loop, path, encode(batch), *headers_of(modern, name=shown(path, "echo")))
        refused(loop, reply, INVALID_REQUEST)


@every_face
@every_era
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "tools/list", "initialize"])
def test_request_in_the_dress_of_a_notification_is_refused(loop: LoopRig, path: str, modern: bool, method: str) -> None:
    message = call(path, modern, method=method)
    del message["id"]
    reply = sent(loop, path, encode(message), *headers_of(modern, method, shown(path, "echo")))
    refused(loop, reply, INVALID_REQUEST)


@every_face
def test_response_is_not_taken_in_the_modern_era(loop: LoopRig, path: str) -> None:
    body = encode({"jsonrpc": "2.0", "id": 1, "result": {}})
    refused(loop, sent(loop, path, body, ("mcp-protocol-version", MODERN)), INVALID_REQUEST)


@every_face
@pytest.mark.parametrize("version", [None, "2025-11-25", "2024-11-05"])
def test_modern_body_without_its_header_is_refused(loop: LoopRig, path: str, version: str | None) -> None:
    headers = [] if version is None else [("mcp-protocol-version", version)]
    refused(loop, sent(loop, path, encode(call(path, modern=True)), *headers), HEADER_MISMATCH)


@every_face
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mcp-method", []),
        ("mcp-method", ["tools/list"]),
        ("mcp-method", ["tools/Call"]),
        ("mcp-method", ["TOOLS/CALL"]),
        ("mcp-method", ["tools/call\u00a0"]),
        ("mcp-method", ["=?base64?dG9vbHMvY2FsbA==?="]),
        ("mcp-method", ["tools/call", "tools/call"]),
        ("mcp-method", ["tools/call", "tools/list"]),
        ("mcp-name", []),
        ("mcp-name", [""]),
        ("mcp-name", ["other"]),
        ("mcp-name", ["ECHO"]),
        ("mcp-name", ["=?base64?b3RoZXI=?="]),
        ("mcp-name", ["=?base64?ZWNobx==?="]),
        ("mcp-name", ["=?base64?ZWNobw?="]),
        ("mcp-name", ["=?base64?%%%?="]),
        ("mcp-name", ["=?base64?/w==?="]),
        ("mcp-name", ["=?BASE64?ZWNobw==?="]),
        ("mcp-name", ["echo", "echo"]),
        ("mcp-name", ["echo", "other"]),
        ("mcp-protocol-version", [MODERN, MODERN]),
        ("mcp-protocol-version", [MODERN, "2025-11-25"]),
        ("mcp-protocol-version", ["2025-11-25", MODERN]),
        ("mcp-protocol-version", ["2099-01-01"]),
        ("mcp-protocol-version", [""]),
    ],
)
def test_header_that_lies_is_refused(loop: LoopRig, path: str, name: str, values: list[str]) -> None:
    headers = [pair for pair in headers_of(modern=True, name=shown(path, "echo")) if pair[0] != name]
    headers += [(name, shown(path, value) if value == "echo" else value) for value in values]
    reply = sent(loop, path, encode(call(path, modern=True)), *headers)
    refused(loop, reply, HEADER_MISMATCH)


@every_face
@pytest.mark.parametrize("lie", [("mcp-method", "tools/list"), ("mcp-name", "other"), ("mcp-name", "=?base64?%?=")])
def test_header_that_lies_is_refused_in_the_handshake_era_too(loop: LoopRig, path: str, lie: tuple[str, str]) -> None:
    reply = sent(loop, path, encode(call(path, modern=False)), *headers_of(modern=False), lie)
    refused(loop, reply, HEADER_MISMATCH)


@every_face
@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "eu"}, []),
        ({"region": "eu"}, [("mcp-param-region", "us")]),
        ({"region": "eu"}, [("mcp-param-region", "EU")]),
        ({"region": "eu"}, [("mcp-param-region", "eu"), ("mcp-param-region", "eu")]),
        ({"region": "eu"}, [("mcp-param-region", "=?base64?ZXX=?=")]),
        ({}, [("mcp-param-region", "eu")]),
        ({"region": None}, [("mcp-param-region", "eu")]),
        ({"region": ["eu"]}, [("mcp-param-region", "eu")]),
        ({"count": 1}, [("mcp-param-count", "1.")]),
        ({"count": 1}, [("mcp-param-count", "=?base64?77yR?=")]),
        ({"count": 10**20}, [("mcp-param-count", "1e20")]),
        ({"count": True}, [("mcp-param-count", "1")]),
    ],
)
def test_parameter_header_that_lies_is_refused(
    loop: LoopRig, path: str, arguments: dict[str, Any], headers: list[tuple[str, str]]
) -> None:
    body = encode(call(path, modern=True, name="routed", arguments=arguments))
    reply = sent(loop, path, body, *headers_of(modern=True, name=shown(path, "routed")), *headers)
    refused(loop, reply, HEADER_MISMATCH)


@every_face
@every_era
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": None},
        {"name": 5},
        {"name": ["echo"]},
        {"name": {"echo": 1}},
        {"name": "files__echo", "arguments": []},
        {"name": "files__echo", "arguments": "{}"},
        {"name": "files__echo", "arguments": 5},
        {"name": "files__" + "x" * 9000},
    ],
)
def test_call_without_a_name_or_an_object_is_refused(
    loop: LoopRig, path: str, modern: bool, params: dict[str, Any]
) -> None:
    if path != "/mcp" and isinstance(params.get("name"), str):
        params = {**params, "name": params["name"].removeprefix("files__")}
    name = params.get("name")
    message = call(path, modern)
    message["params"] = {**params, **({"_meta": META} if modern else {})}
    headers = headers_of(modern, name=name if isinstance(name, str) else None)
    reply = sent(loop, path, encode(message), *headers)
    # A modern name that is no string cannot equal any header, and so fails one rung earlier.
    if reply.status == 400:
        refused(loop, reply, HEADER_MISMATCH)
    else:
        refused(loop, reply, INVALID_PARAMS, status=200)


@every_face
@every_era
@pytest.mark.parametrize(
    "name", ["Echo", "ECHO", "echo ", " echo", "ech\u043e", "echo\x00", "", "../echo", "echo__", "_echo"]
)
def test_name_that_only_looks_like_a_tools_is_not_forwarded(loop: LoopRig, path: str, modern: bool, name: str) -> None:
    reply = sent(loop, path, encode(call(path, modern, name=name)), *headers_of(modern, name=shown(path, name)))
    assert reply.status == 200
    assert "error" in reply.message or reply.result["isError"] is True
    assert loop.rig.servers["files"].calls == []
    assert_quiet(reply)


@given(json_objects(), json_objects(), st.sampled_from(PATHS), st.sampled_from(ERAS))
@settings(max_examples=80, deadline=None)
def test_policy_sees_the_very_bytes_that_the_upstream_receives(
    loop: LoopRig, arguments: dict[str, Any], vendor: dict[str, Any], path: str, modern: bool
) -> None:
    message = call(path, modern, arguments=arguments)
    message["params"]["vendor/x"] = vendor
    reply = sent(loop, path, json.dumps(message).encode(), *headers_of(modern, name=shown(path, "echo")))
    assert reply.status == 200
    received = loop.rig.servers["files"].received[-1]
    judged = [document for phase, document in loop.rig.engine.asked if phase == "call"]
    assert len(judged) == 1
    seen = strict_loads(judged[0])
    got = strict_loads(received)
    assert same_json(seen["arguments"], got["params"]["arguments"])
    assert same_json(got["params"]["arguments"], arguments)
    assert encode(arguments) in received
    assert encode(arguments) in judged[0]
    assert (seen["tool"]["name"], seen["method"]) == (got["params"]["name"], got["method"]) == ("echo", "tools/call")


_PIECES = st.sampled_from(
    [
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\",
            b"\\u",
            b"\\ud800",
            b"0",
            b"-",
            b"e",
            b"1e999",
            b"NaN",
            b"\x00",
        ),
        *(
            b'"name":"other",',
            b'"arguments":{},',
            b'"Name":"other",',
            b'"method":"tools/list",',
            b"\xef\xbb\xbf",
            b"\xff",
        ),
    ]
)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 4), _PIECES), min_size=1, max_size=3), st.sampled_from(PATHS)
)
@settings(max_examples=200, deadline=None)
def test_mangled_call_is_refused_or_judged_as_it_is_sent(
    loop: LoopRig, edits: list[tuple[int, int, bytes]], path: str
) -> None:
    text = bytearray(encode(call(path, modern=True, arguments={"a": [1, "x", {"b": None}], "c": 1.5})))
    for place, length, piece in edits:
        text[place % len(text) : place % len(text) + length] = piece
    reply = sent(loop, path, bytes(text), *headers_of(modern=True, name=shown(path, "echo")))
    received = loop.rig.servers["files"].calls
    judged = loop.rig.engine.documents("call")
    assert len(received) <= len(judged) <= 1
    for message in received:
        assert same_json(message["params"].get("arguments", {}), judged[0]["arguments"])
        assert same_json(strict_loads(bytes(text))["params"].get("arguments", {}), judged[0]["arguments"])
    if reply.status != 200:
        assert_quiet(reply)
        assert received == judged == []


@every_face
def test_number_that_policies_cannot_read_is_denied(loop: LoopRig, path: str) -> None:
    body = encode(call(path, modern=True, arguments={"a": 10**309}))
    reply = sent(loop, path, body, *headers_of(modern=True, name=shown(path, "echo")))
    assert reply.result["isError"] is True
    assert "cannot read the input" in reply.result["content"][0]["text"]
    assert loop.rig.servers["files"].requests == []


@pytest.mark.parametrize("kind", ["duplicate", "NaN", "escaped lone surrogate", "1e400"])
def test_these_checks_catch_a_parser_that_takes_everything(
    loop: LoopRig, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lenient(text: bytes, _depth: int = 0) -> Message:
        document = json.loads(text)
        return Message(document, text, "request")

    monkeypatch.setattr("fulcrum_mcp.api.mcp.endpoint.parse_message", lenient)
    body = encode(call("/servers/files/mcp", modern=True, arguments=Raw(HOSTILE[kind])))
    reply = sent(loop, "/servers/files/mcp", body, *headers_of(modern=True))
    with pytest.raises((AssertionError, ValueError)):
        refused(loop, reply, PARSE_ERROR, INVALID_REQUEST)
