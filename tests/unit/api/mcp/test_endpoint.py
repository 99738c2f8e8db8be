"""What fails inside reaches the client as an id that the log knows, never as a traceback, and loses nothing."""

from typing import Any

import pytest
from gateway_rig import open_rig
from scripted_server import ScriptedServer
from structlog.testing import capture_logs

from fulcrum_mcp.errors import Invalid, Unavailable

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}


@pytest.mark.parametrize("modern", [True, False])
async def test_bug_is_told_as_an_id_that_the_log_knows(modern: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client(PATH, modern=modern)
        if not modern:
            await client.connect()

        async def buggy(*_: Any) -> Any:
            raise ZeroDivisionError("secret of the inside")

        with monkeypatch.context() as patch, capture_logs() as logged:
            patch.setattr("fulcrum_mcp.gateway.govern.Governor.judge", buggy)
            reply = await client.request("tools/call", ECHO)
        assert (reply.status, reply.code) == (500, -32603)
        assert b"secret" not in reply.body
        assert b"Traceback" not in reply.body
        (entry,) = [line for line in logged if "error_id" in line]
        assert entry["error_id"] in reply.message["error"]["message"]
        assert rig.servers["files"].calls == []
        assert "echo" in (await client.request("tools/call", ECHO)).result


async def test_identity_that_does_not_answer_is_a_503_with_a_time_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_rig(ScriptedServer("files")) as rig:

        async def away(*_: Any) -> Any:
            raise Unavailable("keys: the store is locked; try again")

        with monkeypatch.context() as patch:
            patch.setattr("fulcrum_adapters.memory.identity.MemoryIdentity.verify", away)
            reply = await rig.client(PATH).request("tools/call", ECHO)
        assert (reply.status, reply.header("retry-after")) == (503, "1")
        assert "the store is locked" in reply.message["error"]["message"]
        assert (await rig.client(PATH).request("tools/call", ECHO)).status == 200


async def test_known_fault_is_a_400_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_rig(ScriptedServer("files")) as rig:

        async def invalid(*_: Any) -> Any:
            raise Invalid("this request: cannot be; send another")

        with monkeypatch.context() as patch:
            patch.setattr("fulcrum_mcp.gateway.single.SingleFace.post", invalid)
            reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.status == 400
        assert reply.message["error"]["message"] == "this request: cannot be; send another"


async def test_endpoint_serves_its_own_paths_only() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        serves = rig.endpoint.serves
        assert all(serves(path) for path in ("/mcp", "/servers/files/mcp", "/servers/unknown/mcp"))
        assert not any(serves(path) for path in ("/", "/mcp/", "/mcpx", "/servers/files", "/api/v1/keys", "/servers"))
