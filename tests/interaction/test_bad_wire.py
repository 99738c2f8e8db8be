"""Bad requests get the protocol's own answer: nothing is called, nothing of our inside is told, nothing is lost."""

import json
from typing import Any, Final

import pytest
from asgi_driver import Exchanged
from gateway_rig import KEY, PRINCIPAL, Rig, open_rig, with_defaults
from scripted_server import HANDSHAKE, MODERN, ScriptedServer
from structlog.testing import capture_logs

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.snapshot import Limits

pytestmark = pytest.mark.anyio

SINGLE: Final = "/servers/files/mcp"
PATHS: Final = (SINGLE, "/mcp")
CALL: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
BODY: Final = json.dumps(CALL).encode()
BOB: Final = Principal("acme", "bob", "k2", (), frozenset({"tool:call"}))
READER: Final = Principal("acme", "eve", "k3", (), frozenset({"audit:read"}))
KEYS: Final = {KEY: PRINCIPAL, "key-of-bob": BOB, "key-of-eve": READER}

every_face = pytest.mark.parametrize("path", PATHS)
every_verb = pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])


def assert_refused(rig: Rig, reply: Exchanged, status: int) -> None:
    """That status, a JSON-RPC error for the client, and no call anywhere."""
    assert reply.status == status, reply.body
    message = json.loads(reply.body)
    assert message["jsonrpc"] == "2.0"
    assert isinstance(message["error"]["code"], int)
    text = reply.body.decode()
    for inside in ("Traceback", "internal error", ".py", "Error(", "fulcrum_mcp", KEY, "key-of"):
        assert inside not in text
    assert len(text) < 600
    assert rig.servers["files"].requests == []
    assert rig.records() == []


async def ask(rig: Rig, verb: str, path: str, *headers: tuple[str, str], body: bytes | list[bytes] = b"") -> Exchanged:
    return await rig.app.request(verb, path, with_defaults(headers), body)


@every_face
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/jsonp", "application/x-json", "text/json", "json", "\xff"]
)
async def test_body_of_another_type_is_refused(path: str, kind: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        assert_refused(rig, await ask(rig, "POST", path, ("content-type", kind), body=BODY), 415)


async def test_type_with_parameters_and_in_capitals_is_served() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        for kind in ("application/json; charset=utf-8", "Application/JSON", "application/json;x=y"):
            assert (await ask(rig, "POST", SINGLE, ("content-type", kind), body=BODY)).status == 200


@every_face
@pytest.mark.parametrize("verb", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "BREW"])
async def test_other_methods_are_not_allowed(path: str, verb: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await ask(rig, verb, path)
        assert_refused(rig, reply, 405)
        assert reply.header("allow") == "GET, POST, DELETE"


@every_face
@pytest.mark.parametrize("verb", ["GET", "DELETE"])
async def test_modern_era_has_no_sessions_to_get_or_delete(path: str, verb: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await ask(rig, verb, path, ("mcp-protocol-version", MODERN))
        assert_refused(rig, reply, 405)
        assert reply.header("allow") == "POST"


@every_verb
@pytest.mark.parametrize(
    "path",
    [
        "/servers/unknown/mcp",
        "/servers//mcp",
        "/servers/files/mcp/",
        "/servers/Files/mcp",
        "/servers/files/../files/mcp",
        "/servers/files%2fmcp",
        "/mcp/",
        "/mcp/x",
        "/MCP",
        "/",
        "/servers/" + "x" * 9000 + "/mcp",
    ],
)
async def test_unknown_place_is_not_found(verb: str, path: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        assert_refused(rig, await ask(rig, verb, path, body=BODY), 404)


@every_face
@pytest.mark.parametrize("said", [True, False], ids=["length", "chunks"])
async def test_body_beyond_the_limit_is_refused(path: str, said: bool) -> None:
    async with open_rig(ScriptedServer("files"), limits=Limits(max_body=1000)) as rig:
        fits = json.dumps({**CALL, "x": "y" * (1000 - len(BODY) - 9)}).encode()
        assert len(fits) == 1000
        ok = await ask(rig, "POST", SINGLE, ("content-length", "1000"), body=[fits[:300], fits[300:]])
        assert ok.status == 200
        await rig.settled()
        rig.forget()
        rig.log.lines.clear()  # type: ignore[attr-defined]  # a memory log
        headers = [("content-length", "1001")] if said else []
        pieces = [fits[:600], fits[600:] + b" "] if said else [b" " * 400] * 1000
        assert_refused(rig, await ask(rig, "POST", path, *headers, body=pieces), 413)


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000, "-1", "1e3", "x", "", "\xb2"])
async def test_length_that_is_none_breaks_nothing(length: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await ask(rig, "POST", SINGLE, ("content-length", length), body=BODY)
        assert reply.status == (413 if length.startswith("9") else 200)


@every_face
@pytest.mark.parametrize("body", [b"", b" ", b"null", b"5", b'""', b"x", b"\xff\xfe", b"{}", b'{"jsonrpc":"2.0"}'])
async def test_body_that_is_no_message_is_refused(path: str, body: bytes) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        assert_refused(rig, await ask(rig, "POST", path, body=body), 400)


@every_face
@every_verb
@pytest.mark.parametrize(
    "headers",
    [
        [("x-api-key", "")],
        [("x-api-key", "wrong")],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer key-of-nobody")],
        [("authorization", f"Basic {KEY}")],
        [("authorization", f"Bearer {KEY}x")],
        [("authorization", "Bearer " + "x" * 20000)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
        [("x-api-key", KEY), ("x-api-key", "key-of-bob")],
    ],
)
async def test_request_without_a_valid_key_is_challenged(path: str, verb: str, headers: list[tuple[str, str]]) -> None:
    async with open_rig(ScriptedServer("files"), principals=KEYS) as rig:
        reply = await ask(rig, verb, path, *headers, body=BODY)
        assert_refused(rig, reply, 401)
        assert str(reply.header("www-authenticate")).startswith("Bearer")


@every_face
@every_verb
async def test_key_without_the_scope_is_forbidden(path: str, verb: str) -> None:
    async with open_rig(ScriptedServer("files"), principals=KEYS) as rig:
        reply = await ask(rig, verb, path, ("x-api-key", "key-of-eve"), body=BODY)
        assert_refused(rig, reply, 403)
        assert "tool:call" in reply.body.decode()


@every_face
@every_verb
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:8080", "http://evil.example:8080"),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "null"),
        ("", None),
    ],
)
async def test_foreign_host_or_origin_is_forbidden_whatever_key_comes(
    path: str, verb: str, host: str, origin: str | None
) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        headers = [("host", host), *([] if origin is None else [("origin", origin)])]
        assert_refused(rig, await ask(rig, verb, path, *headers, body=BODY), 403)


@every_verb
async def test_host_or_origin_that_comes_twice_or_not_at_all_is_forbidden(verb: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        two_hosts = [("host", "localhost"), ("host", "localhost")]
        two_origins = [("origin", "http://localhost"), ("origin", "http://localhost")]
        for headers in (two_hosts, two_origins):
            assert_refused(rig, await ask(rig, verb, SINGLE, *headers, body=BODY), 403)
        bare = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
        assert_refused(rig, await rig.app.request(verb, SINGLE, bare, BODY), 403)


@every_face
@every_verb
@pytest.mark.parametrize(
    "session", ["", "unknown", "f1.", "f1.AAAA", "f1." + "A" * 200, "x" * 100_000, "\xe9", "files-1"]
)
async def test_unknown_session_is_not_found(path: str, verb: str, session: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await ask(rig, verb, path, ("mcp-session-id", session), body=BODY)
        assert_refused(rig, reply, 404)


@every_face
@every_verb
async def test_session_of_another_principal_is_not_found_for_me(path: str, verb: str) -> None:
    async with open_rig(ScriptedServer("files"), principals=KEYS) as rig:
        ann = rig.client(path, modern=False)
        await ann.connect()
        assert ann.session is not None
        await rig.settled()
        rig.forget()
        theirs = [("x-api-key", "key-of-bob"), ("mcp-session-id", ann.session)]
        assert_refused(rig, await ask(rig, verb, path, *theirs, body=BODY), 404)
        changed = ann.session[:-2] + ("AA" if ann.session[-2:] != "AA" else "BB")
        assert_refused(rig, await ask(rig, verb, path, ("mcp-session-id", changed), body=BODY), 404)
        twice = [("mcp-session-id", ann.session), ("mcp-session-id", ann.session)]
        assert_refused(rig, await ask(rig, verb, path, *twice, body=BODY), 404)
        assert (await ann.request("tools/list")).status == 200


@every_face
async def test_session_ends_once(path: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        ann = rig.client(path, modern=False)
        await ann.connect()
        assert ann.session is not None
        assert (await ask(rig, "DELETE", path, ("mcp-session-id", ann.session))).status == 200
        assert any(request.verb == "DELETE" for request in rig.servers["files"].requests)


@pytest.mark.parametrize("name", ["x-fulcrum-envelope", "x-fulcrum-workflow", "x-fulcrum-execution"])
@pytest.mark.parametrize("values", [[""], [" "], ["x" * 257], ["a", "a"], ["a", "b"]])
@every_face
async def test_name_of_an_envelope_that_is_none_is_refused(path: str, name: str, values: list[str]) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await ask(rig, "POST", path, *((name, value) for value in values), body=BODY)
        assert_refused(rig, reply, 400)
        assert json.loads(reply.body)["id"] == 1


@pytest.mark.parametrize("value", ["", 5, None, [], "x" * 257, True])
async def test_envelope_in_meta_that_is_no_name_is_refused(value: Any) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        message = {**CALL, "params": {**CALL["params"], "_meta": {"dev.fulcrum/envelope": value}}}  # type: ignore[dict-item]
        reply = await ask(rig, "POST", SINGLE, body=json.dumps(message).encode())
        if value is None:
            assert reply.status == 200
        else:
            assert_refused(rig, reply, 400)


async def test_envelope_in_header_and_meta_must_agree() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        message = {**CALL, "params": {**CALL["params"], "_meta": {"dev.fulcrum/envelope": "a"}}}  # type: ignore[dict-item]
        body = json.dumps(message).encode()
        assert_refused(rig, await ask(rig, "POST", SINGLE, ("x-fulcrum-envelope", "b"), body=body), 400)
        assert (await ask(rig, "POST", SINGLE, ("x-fulcrum-envelope", "a"), body=body)).status == 200


async def test_key_that_needs_an_envelope_does_not_pass_with_an_empty_one() -> None:
    needs = {KEY: Principal("acme", "ann", "k1", (), frozenset({"tool:call"}), require_envelope=True)}
    async with open_rig(ScriptedServer("files"), principals=needs) as rig:
        reply = await ask(rig, "POST", SINGLE, body=BODY)
        assert reply.result["isError"] is True
        assert (await ask(rig, "POST", SINGLE, ("x-fulcrum-envelope", ""), body=BODY)).status == 400
        assert rig.servers["files"].requests == []
        assert (await ask(rig, "POST", SINGLE, ("x-fulcrum-envelope", "e1"), body=BODY)).status == 200


@every_face
@pytest.mark.parametrize("named", [[], {}, None, 1.5, True, [[1]], {"a": 1}, "", "unheard-of", 2**70])
async def test_cancellation_of_what_is_no_request_breaks_nothing(path: str, named: Any) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client(path, modern=False)
        await client.connect()
        assert (await client.notify("notifications/cancelled", {"requestId": named})).status == 202
        assert (await client.notify("notifications/progress", {"progressToken": named})).status == 202


@every_face
async def test_huge_headers_break_nothing(path: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        many = [(f"x-{number}", "v") for number in range(2000)]
        many += [
            ("mcp-param-" + "x" * 5000, "y" * 60_000),
            ("traceparent", "t" * 60_000),
            ("x-fulcrum-" + "n" * 999, ""),
        ]
        name = "files__echo" if path == "/mcp" else "echo"
        body = json.dumps({**CALL, "params": {"name": name}}).encode()
        assert (await ask(rig, "POST", path, *many, body=body)).status == 200


@every_face
async def test_client_that_goes_in_the_middle_of_its_message_leaves_nothing(path: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        with capture_logs() as logs:
            stream = rig.app.open("POST", path, with_defaults([]), [BODY[:20], BODY[20:]])
            stream.lose(after=1)
            await stream.task
        assert stream.response.status == 0
        assert logs == []
        assert rig.servers["files"].requests == []


async def test_unknown_version_is_told_the_known_ones() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2099-01-01",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
        headers = [("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")]
        reply = await ask(rig, "POST", SINGLE, *headers, body=json.dumps(message).encode())
        assert_refused(rig, reply, 400)
        assert reply.code == -32022
        assert reply.message["error"]["data"] == {"supported": [MODERN], "requested": "2099-01-01"}


async def test_after_every_refusal_the_gateway_still_serves() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        for body in (b"", b"[" * 100_000, b"\xff", BODY[:-1]):
            assert (await ask(rig, "POST", SINGLE, body=body)).status == 400
        reply = await ask(rig, "POST", SINGLE, ("mcp-protocol-version", HANDSHAKE), body=BODY)
        assert reply.result["echo"] == CALL["params"]
