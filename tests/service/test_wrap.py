"""`fulcrum wrap` as a client starts it: messages only on its output, an end that leaves nothing open."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from governed_processes import FULCRUM, META, until

from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.ports import AuditQuery

pytestmark = [pytest.mark.service, pytest.mark.anyio]

SERVER = Path(__file__).parents[1] / "peers" / "slow_stdio.py"
POLICY = """package fulcrum.policies.mine

import rego.v1

allow := true

deny contains "not that one" if input.arguments.text == "bad"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Wrapped:
    """One wrapped server, and its client by hand."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, request_id: int, tool: str, **arguments: Any) -> None:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        message = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def next(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return json.loads(await self.process.stdout.readline())

    async def exit(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def wrapped(folder: Path, log: str = "wrap.log") -> AsyncIterator[Wrapped]:
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "mine.rego").write_text(POLICY)
    command = [*FULCRUM, "wrap", "--name", "slow", "--policies", str(policies), "--data", str(folder / "data")]
    with (folder / log).open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *command, "--", sys.executable, str(SERVER), str(folder), stdin=-1, stdout=-1, stderr=said
        )
    try:
        yield Wrapped(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def told(folder: Path) -> list[tuple[str, str]]:
    with open_trail(folder / "data") as trail:
        records = [json.loads(record.line) for record in trail.reader.query(AuditQuery(after=0))]
    calls = [record for record in records if record["type"].startswith("dev.fulcrum.tool_call.")]
    return [
        (record["type"].rpartition(".")[2], record["data"].get("outcome", record["data"].get("effect")))
        for record in calls
    ]


async def seen(folder: Path) -> bool:
    return (folder / "seen").exists()


async def test_calls_are_governed_and_the_end_of_input_is_the_end(tmp_path: Path) -> None:
    async with wrapped(tmp_path) as client:
        client.send(1, "echo", text="good")
        assert (await client.next())["result"]["content"][0]["text"] == "good"
        client.send(2, "echo", text="bad")
        assert "not that one" in (await client.next())["result"]["content"][0]["text"]
        assert client.process.stdin is not None
        client.process.stdin.close()
        assert await client.exit() == 0
    assert told(tmp_path) == [("decided", "allow"), ("finished", "ok"), ("decided", "deny")]


async def test_two_clients_share_one_data_folder(tmp_path: Path) -> None:
    async with wrapped(tmp_path, "one.log") as one, wrapped(tmp_path, "two.log") as two:
        for client in (one, two):
            client.send(1, "echo", text="hi")
        for client in (one, two):
            assert (await client.next())["id"] == 1
            assert client.process.stdin is not None
            client.process.stdin.close()
            assert await client.exit() == 0
    assert sorted(told(tmp_path)) == [("decided", "allow")] * 2 + [("finished", "ok")] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_with_every_call_ended(tmp_path: Path, number: signal.Signals) -> None:
    async with wrapped(tmp_path) as client:
        client.send(1, "wait")
        await until(lambda: seen(tmp_path), "the server has the call")
        client.process.send_signal(number)
        assert await client.exit() == 0, (tmp_path / "wrap.log").read_text()
    decided, finished = told(tmp_path)
    assert decided == ("decided", "allow")
    assert finished[0] == "finished"
    assert finished[1] in ("cancelled", "outcome_unknown")
    assert "Traceback" not in (tmp_path / "wrap.log").read_text()


async def test_call_under_way_at_the_end_of_input_is_answered(tmp_path: Path) -> None:
    async with wrapped(tmp_path) as client:
        client.send(1, "wait")
        await until(lambda: seen(tmp_path), "the server has the call")
        assert client.process.stdin is not None
        client.process.stdin.close()
        (tmp_path / "go").touch()
        assert (await client.next())["result"]["content"][0]["text"] == "waited"
        assert await client.exit() == 0
    assert told(tmp_path) == [("decided", "allow"), ("finished", "ok")]
