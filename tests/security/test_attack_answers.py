"""What policies withhold or redact reaches a client by no other way: errors, comments, tasks, repeated streams."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from asgi_driver import Exchanged
from gateway_rig import ALLOW_ALL, KEY, Client, open_rig
from scripted_server import HANDSHAKE, ScriptedServer, json_reply, sse_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

pytestmark = pytest.mark.anyio

SECRET: Final = "s3cr3t-value"
HIDE: Final = """package fulcrum.policies.hide

import rego.v1

redact contains {"pattern": "s3cr3t-[a-z]+", "with": "***"} if input.phase == "result"
"""
LOG: Final = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": SECRET}}
TOLD: Final[Mapping[str, Any]] = {"content": [{"type": "text", "text": SECRET}]}


def server(method: str, answer: Callable[[Any], MemoryReply], **options: Any) -> ScriptedServer:
    """Answers this method of a client so, everything else as usual."""

    def answering(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        own = str(document.get("id", "")).startswith("fulcrum-")
        return None if own or document.get("method") != method else answer(document)

    return ScriptedServer("files", tools=[tool("echo")], answer=answering, **options)


def response(asked: Any, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], **members}


async def call(client: Client) -> Exchanged:
    return await client.request("tools/call", {"name": "echo", "arguments": {}})


@pytest.mark.parametrize("error", [None, {"code": 1, "message": "no"}])
async def test_a_result_beside_an_error_is_withheld(error: object) -> None:
    files = server("tools/call", lambda asked: json_reply(response(asked, error=error, result=TOLD)))
    async with open_rig(files, rego=(ALLOW_ALL, HIDE)) as rig:
        reply = await call(rig.client("/servers/files/mcp"))
        await rig.settled()
        assert SECRET.encode() not in reply.body
        assert [record["data"]["outcome"] for record in rig.records("finished")] == ["withheld"]


async def test_a_list_beside_an_error_is_filtered() -> None:
    hidden = {"tools": [tool("echo"), tool("hidden")]}
    files = server("tools/list", lambda asked: json_reply(response(asked, error=None, result=hidden)))
    hide = 'package fulcrum.policies.hide\n\nimport rego.v1\n\ndeny contains "no" if input.tool.name == "hidden"\n'
    async with open_rig(files, rego=(ALLOW_ALL, hide)) as rig:
        reply = await rig.client("/servers/files/mcp").request("tools/list")
        assert b"hidden" not in reply.body
        assert b"echo" in reply.body


async def test_a_question_that_is_an_answer_too_does_not_pass() -> None:
    both = {"jsonrpc": "2.0", "method": "notifications/x", "id": 7, "result": TOLD}
    files = server("tools/call", lambda asked: sse_reply(both, response(asked, result={"content": []})))
    async with open_rig(files, rego=(ALLOW_ALL, HIDE)) as rig:
        assert SECRET.encode() not in (await call(rig.client("/servers/files/mcp"))).body


@pytest.mark.parametrize("comment", [b"ping - 12:00", SECRET.encode(), json.dumps({"id": 1, "result": TOLD}).encode()])
async def test_a_comment_is_no_answer_and_tells_nothing_of_an_inspected_result(comment: bytes) -> None:
    def answer(asked: Any) -> MemoryReply:
        last = json.dumps(response(asked, result={"content": [{"type": "text", "text": "whole"}]})).encode()
        events = [ServerSentEvent(comment, comment=True), ServerSentEvent(last)]
        return MemoryReply(200, {"content-type": "text/event-stream"}, stream=events)

    async with open_rig(server("tools/call", answer), rego=(ALLOW_ALL, HIDE)) as rig:
        reply = await call(rig.client("/servers/files/mcp"))
        assert b"whole" in reply.body
        assert SECRET.encode() not in reply.body


async def test_a_comment_of_an_uninspected_stream_passes_as_it_is() -> None:
    def answer(asked: Any) -> MemoryReply:
        last = json.dumps(response(asked, result={"content": []})).encode()
        events = [ServerSentEvent(b"ping - 12:00", comment=True), ServerSentEvent(last)]
        return MemoryReply(200, {"content-type": "text/event-stream"}, stream=events)

    async with open_rig(server("tools/call", answer)) as rig:
        assert b":ping - 12:00\n" in (await call(rig.client("/servers/files/mcp"))).body


async def test_an_error_that_ends_a_task_is_redacted_and_settles_the_call() -> None:
    def answer(asked: Any) -> MemoryReply | None:
        if asked.get("method") == "tools/call":
            return json_reply(response(asked, result={"resultType": "task", "taskId": "t1"}))
        if asked.get("method") == "tasks/result":
            return json_reply(response(asked, error={"code": 1, "message": SECRET}))
        return None

    files = ScriptedServer("files", tools=[tool("echo")], answer=lambda _, request: answer(request.document or {}))
    async with open_rig(files, rego=(ALLOW_ALL, HIDE)) as rig:
        client = rig.client("/servers/files/mcp")
        await call(client)
        reply = await client.request("tasks/result", {"taskId": "t1"})
        await rig.settled()
        assert SECRET.encode() not in reply.body
        assert [record["data"]["outcome"] for record in rig.records("finished")] == ["error"]


@pytest.mark.parametrize("path", ["/servers/files/mcp", "/mcp"])
async def test_a_repeated_stream_tells_nothing_of_what_was_redacted(path: str) -> None:
    def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if request.verb == "GET":
            return sse_reply(LOG, {"jsonrpc": "2.0", "id": 2, "result": TOLD}, first_id=1)
        if document.get("method") == "tools/call":
            return sse_reply(LOG, response(document, result=TOLD), first_id=1)
        return None

    async with open_rig(ScriptedServer("files", tools=[tool("echo")], answer=answer), rego=(ALLOW_ALL, HIDE)) as rig:
        client = rig.client(path, modern=False)
        await client.connect()
        prefix = "files__" if path == "/mcp" else ""
        reply = await client.request("tools/call", {"name": f"{prefix}echo", "arguments": {}})
        assert b"***" in reply.body
        last = "files:e0" if path == "/mcp" else "e0"
        again = await listen(client, ("last-event-id", last))
        assert again.status == 200
        assert SECRET.encode() not in again.body


async def listen(client: Client, *more: tuple[str, str]) -> Exchanged:
    lines = [
        ("host", "127.0.0.1:8080"),
        ("accept", "text/event-stream"),
        ("authorization", f"Bearer {KEY}"),
        ("mcp-session-id", client.session or ""),
        ("mcp-protocol-version", HANDSHAKE),
        *more,
    ]
    headers = [(name.encode(), value.encode()) for name, value in lines]
    return await client.rig.app.request("GET", client.path, headers, b"")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_challenge_in_a_stream_becomes_a_tool_error(status: int) -> None:
    def answer(asked: Any) -> MemoryReply:
        reply = sse_reply(response(asked, result={"content": []}))
        reply.status = status
        return reply

    async with open_rig(server("tools/call", answer)) as rig:
        reply = await call(rig.client("/servers/files/mcp"))
        assert reply.status == 200
        assert b"refused the gateway's credentials" in reply.body
