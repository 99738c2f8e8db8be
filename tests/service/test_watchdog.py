"""A policy that never ends on a special input, slipped through admission: its worker is ended and replaced."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from governed_processes import until
from peers.marking_server import read_notes
from stalls import Stalls
from worker_processes import Holding, Workers

from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.composition.control import open_ledger_usage
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import AuditQuery
from fulcrum_mcp.settings import load

pytestmark = [pytest.mark.service, pytest.mark.anyio]

ENDLESS = """package fulcrum.policies.endless

import rego.v1

allow := true

deny contains "too many" if {
	input.phase == "call"
	some deep in input.arguments.outer.items
	count([1 | some a in deep; some b in deep; some c in deep; some d in deep; some e in deep; a + b + c + d < e]) > 0
}
"""
SPECIAL = {"items": [list(range(400))]}
"""What `ENDLESS` would take years for. Admission tries long values in `outer`, not below it."""
WORD = "correct-horse-battery-staple"
BUDGET = """
[[budget]]
name = "all"
scope = "tenant"
calls = 1000
period = "infinite"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Start = Callable[..., Any]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Holding(tmp_path / "notes"))
        (tmp_path / "policies").mkdir()
        (tmp_path / "policies" / "endless.rego").write_text(ENDLESS)

        async def begin(workers: int = 2, more: str = "") -> Workers:
            (tmp_path / "fulcrum.toml").write_text(
                f'{more}[[server]]\nname = "marks"\nurl = "{upstream.url}"\n{BUDGET}'
            )
            up = Workers(tmp_path, upstream.url, workers, str(tmp_path / "policies"))
            stack.push_async_callback(up.close)
            await up.start()
            return up

        yield begin


def outcomes(data: Path) -> list[str]:
    with open_trail(data) as trail:
        records = [json.loads(record.line) for record in trail.reader.query(AuditQuery(after=0, limit=100_000))]
    return sorted(record["data"]["outcome"] for record in records if record["type"].endswith("tool_call.finished"))


def charged(up: Workers) -> tuple[int, int]:
    usage, close = open_ledger_usage(up.data)
    try:
        (found,) = usage(load(up.data.parent / "fulcrum.toml", environ={}).budgets, now_ns())
    finally:
        close()
    return found.committed["calls"], found.reserved["calls"]


async def test_worker_that_an_endless_policy_keeps_busy_is_replaced_and_its_open_calls_are_settled(
    start: Start, stack: AsyncExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up: Workers = await start()
    struck, other = await up.line(1), await up.line(2)
    beside = await up.line(1)
    before = up.pids()
    open_call = asyncio.create_task(beside.call("hold 60"))
    await until_seen(tmp_path, "hold 60")

    stalls = stack.enter_context(Stalls(lambda: [os.getpid(), *before.values()], tmp_path))
    began = time.monotonic()
    endless = asyncio.create_task(struck.call(f"never {WORD}", outer=SPECIAL))
    served = longest = 0.0
    while not endless.done():
        sent = time.monotonic()
        answer = await other.call(f"meanwhile {served}")
        longest = max(longest, time.monotonic() - sent)
        assert answer is not None
        assert "isError" not in answer["result"]
        served += 1
        assert time.monotonic() - began < 60, "the worker was not ended"
    assert await endless is None
    assert await open_call is None
    await up.replaced(1, before[1])
    took = stalls.own(began, time.monotonic())
    assert up.pids()[2] == before[2]
    assert served > 20
    replaced = await up.line(1)
    assert (await replaced.call("as before"))["result"]["content"][0]["text"] == "as before"

    texts = [text for _, text in read_notes(tmp_path / "notes")]
    assert not any(text.startswith("never") for text in texts), "the call was forwarded"

    async def settled() -> bool:
        return outcomes(up.data).count("outcome_unknown") == 1 and charged(up)[1] == 0

    await until(settled, "the open call is settled")
    assert charged(up)[0] == len(texts)
    (line,) = [line for line in up.said() if line["event"] == "worker ended and is replaced"]
    assert (line["worker"], line["end"]) == (1, "ended by its watchdog: no sign of life for too long")
    assert "rego/engine.py" in line["traceback"]
    log = up.log.read_text()
    assert WORD not in log
    assert "never" not in line["traceback"]
    assert await up.end(signal.SIGTERM) == 0
    with capsys.disabled():
        sys.stdout.write(f"\nreplaced in {took:.2f} s; {served:.0f} calls meanwhile, the slowest {longest:.3f} s\n")
    assert took < 8, "4 s on a machine of its own"


async def until_seen(folder: Path, text: str) -> None:
    async def seen() -> bool:
        return any(said == text for _, said in read_notes(folder / "notes"))

    await until(seen, f"the upstream sees {text}")


async def test_lone_worker_is_replaced_too(start: Start) -> None:
    up: Workers = await start(1)
    line = await up.line()
    before = up.pids()
    assert await line.call("never", outer=SPECIAL) is None
    await up.replaced(1, before[1])
    assert (await (await up.line()).call("again"))["result"]["content"][0]["text"] == "again"


async def test_worker_that_was_stopped_for_longer_than_the_watchdog_waits_is_left_alone(start: Start) -> None:
    up: Workers = await start(2, "watchdog_seconds = 1.0\n")
    other = await up.line(2)
    pids = up.pids()
    stopped = psutil.Process(pids[1])
    stopped.suspend()
    until_then = time.monotonic() + 4.5  # the supervisor's patience with silence is three times the watchdog's
    try:
        while time.monotonic() < until_then:
            assert await other.call("meanwhile") is not None
            assert stopped.is_running()
    finally:
        stopped.resume()
    line = await up.line(1)
    assert (await line.call("awake"))["result"]["content"][0]["text"] == "awake"
    assert up.pids() == pids


async def test_largest_messages_are_no_silence(start: Start) -> None:
    up: Workers = await start(1, "watchdog_seconds = 1.0\n")
    before = up.pids()
    line = await up.line()
    for number in range(3):
        answer = await line.call(f"large {number} " + "x" * 200_000, more=["y" * 10] * 4_000)
        assert answer is not None
    assert up.pids() == before
