"""The same promise with a real process behind: what goes through its pipes comes back whole."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import Client, LoopRig, loop_rig
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import JsonValue, json_objects, json_values, same_json
from scripted_server import ScriptedServer

from fulcrum_adapters.upstream.stdio import StdioConfig, StdioUpstream

pytestmark = pytest.mark.service

SERVER = Path(__file__).parents[1] / "peers" / "json_echo.py"

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.integers(-(2**70), 2**70)


@pytest.fixture(scope="module", params=[True, False], ids=["modern", "handshake"])
def client(request: pytest.FixtureRequest) -> Iterator[tuple[LoopRig, Client]]:
    def upstream(server: ScriptedServer) -> StdioUpstream:
        return StdioUpstream(server.name, StdioConfig(command=(sys.executable, str(SERVER))))

    with loop_rig(ScriptedServer("files"), upstream=upstream) as loop:
        client = loop.rig.client("/servers/files/mcp", modern=request.param)
        if not request.param:
            assert loop.run(client.connect()).status == 200
        yield loop, client


def without_meta(message: Any) -> dict[str, Any]:
    """The gateway may add to `_meta` for a server of many clients (progress tokens); the rest is the client's."""
    return {**message, "id": None, "params": {key: value for key, value in message["params"].items() if key != "_meta"}}


@given(request_id=ids, arguments=json_objects(), more=json_objects(), beside=json_values())
@settings(max_examples=40, deadline=None)
def test_everything_comes_back_from_a_process_as_it_was_sent(
    client: tuple[LoopRig, Client], request_id: JsonValue, arguments: JsonValue, more: JsonValue, beside: JsonValue
) -> None:
    loop, speaker = client
    params = {**{f"vendor/{key}": value for key, value in more.items()}, "name": "echo", "arguments": arguments}
    message = {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": "tools/call",
        "params": speaker.params(params),
        "x-beside": beside,
    }
    reply = loop.run(speaker.send(message))
    assert reply.status == 200
    answer = reply.message
    assert same_json(answer["id"], request_id)
    lines = [answer["result"]["line"], answer["x-line"]]
    lines += [event.message["params"]["line"] for event in reply.events if event.data and "method" in event.message]
    assert len(lines) >= 2
    for line in lines:
        assert same_json(without_meta(line), without_meta(message))


@given(params=json_objects())
@settings(max_examples=20, deadline=None)
def test_unknown_method_comes_back_from_a_process_as_it_was_sent(
    client: tuple[LoopRig, Client], params: JsonValue
) -> None:
    loop, speaker = client
    message = {"jsonrpc": "2.0", "id": "u", "method": "vendor/x", "params": speaker.params({"x": params})}
    line = loop.run(speaker.send(message)).result["line"]
    assert same_json(without_meta(line), without_meta(message))
