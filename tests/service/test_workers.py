"""`fulcrum up --workers 2`: workers are killed, drained, orphaned and replaced, and nobody is the poorer for it."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from governed_processes import FULCRUM, free_port, marking_http, until
from kill_checker import faults, gather, planted_faults
from peers.marking_server import read_notes
from worker_processes import Holding, Workers

from fulcrum_mcp.settings import load

pytestmark = [pytest.mark.service, pytest.mark.anyio]

CONFIG = """\
[[server]]
name = "marks"
url = "{url}"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000000
period = "infinite"

[[budget]]
name = "tight"
scope = "tool:marks__tight"
calls = 40
period = "infinite"
action = "hard"
"""
Start = Callable[..., Any]
REPLACED = "worker ended and is replaced"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """A gateway with workers before a server in this process."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Holding(tmp_path / "notes"))

        async def begin(workers: int = 2) -> Workers:
            up = Workers(tmp_path, upstream.url, workers)
            stack.push_async_callback(up.close)
            await up.start()
            return up

        yield begin


async def gone(*pids: int) -> None:
    async def none() -> bool:
        return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)

    await until(none, f"{pids} have ended")


def stored_outcomes(lines: list[bytes]) -> list[str]:
    records = [json.loads(line) for line in lines if line.startswith(b'{"specversion"')]
    return [record["data"]["outcome"] for record in records if record["type"].endswith("tool_call.finished")]


async def exported(data: Path) -> list[bytes]:
    """The whole trail, verified."""
    trail = data.parent / "trail.jsonl"
    for arguments in (
        ("audit", "export", "--data", str(data), "-o", str(trail)),
        ("audit", "verify", str(trail), "--public-key", str(data / "keys" / "audit.pub")),
    ):
        done = await asyncio.to_thread(
            subprocess.run, [*FULCRUM, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return trail.read_bytes().splitlines()


class Crowd:
    """Clients that call, and one that only knocks, whatever happens to the workers."""

    def __init__(self, up: Workers) -> None:
        self.up = up
        self.answered: dict[str, str] = {}
        self.lost = self.refused = 0
        self._chance = random.Random()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, clients: int) -> None:
        self._tasks = [asyncio.create_task(self._call(f"c{number}")) for number in range(clients)]
        self._tasks.append(asyncio.create_task(self._knock()))

    async def _call(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            text = f"{name}-{number}"
            answer = await self.up.call("tight" if self._chance.random() < 0.3 else "mark", text)
            if answer is None:
                self.lost += 1
            else:
                self.answered[text] = "denied" if answer["result"].get("isError") else "ok"

    async def _knock(self) -> None:
        """New connections, one after the other: while a sibling lives none is refused."""
        while not self._stop.is_set():
            try:
                (await self.up.line()).close()
            except ConnectionRefusedError:
                self.refused += 1

    async def more(self, number: int) -> None:
        """Wait for so many more answers."""
        goal = len(self.answered) + number

        async def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.answered) >= goal

        await until(reached, "the clients go on")

    async def end(self) -> None:
        self._stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)


@pytest.mark.timeout(120)
async def test_workers_killed_under_load_lose_no_record_and_charge_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "http.notes"
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(marking_http(notes))
        (tmp_path / "fulcrum.toml").write_text(CONFIG.format(url=url))
        up = Workers(tmp_path, url)
        stack.push_async_callback(up.close)
        await up.start()
        crowd = Crowd(up)
        crowd.start(4)
        for number in range(6):
            await crowd.more(random.randrange(20, 80))
            victim = up.pids()[1 + number % 2]
            psutil.Process(victim).kill()
            await gone(victim)
            await up.replaced(1 + number % 2, victim)
        await crowd.end()
        assert await up.end(signal.SIGTERM) == 0
        lines = await exported(up.data)
    assert crowd.refused == 0
    evidence = gather(up.data, load(tmp_path / "fulcrum.toml", environ={}).budgets, [notes], crowd.answered, lines)
    assert faults(evidence) == []
    assert evidence.spent["tight"][0] == 40
    assert [line["end"] for line in up.said() if line["event"] == REPLACED] == ["signal SIGKILL"] * 6
    for what, planted in planted_faults(evidence).items():
        assert faults(planted) != [], what
    with capsys.disabled():
        sys.stdout.write(
            f"\n6 kills: {len(evidence.seen)} calls seen upstream, {len(evidence.records)} records, "
            f"{stored_outcomes(lines).count('outcome_unknown')} outcome_unknown, {crowd.lost} calls without answer, "
            f"spent {evidence.spent}\n"
        )


async def test_sigterm_ends_all_workers_after_what_they_serve(start: Start, tmp_path: Path) -> None:
    up: Workers = await start()
    pids = up.pids()
    lines = [await up.line(number) for number in (1, 2)]
    calls = [asyncio.create_task(line.call(f"hold 1.5 {line.worker}")) for line in lines]

    async def under_way() -> bool:
        return len(read_notes(tmp_path / "notes")) == 2

    await until(under_way, "both calls are upstream")
    assert await up.end(signal.SIGTERM) == 0
    answers = await asyncio.gather(*calls)
    assert [answer["result"]["content"][0]["text"] for answer in answers] == ["hold 1.5 1", "hold 1.5 2"]
    await gone(*pids.values())
    assert stored_outcomes(await exported(up.data)) == ["ok", "ok"]
    assert list((up.data / "workers").iterdir()) == []
    assert not up.said()


async def test_supervisor_killed_leaves_no_worker_and_no_socket_behind(start: Start) -> None:
    up: Workers = await start()
    pids = up.pids()
    line = await up.line()
    assert (await line.call("one"))["result"]["content"][0]["text"] == "one"
    await up.end(signal.SIGKILL)
    await gone(*pids.values())
    assert stored_outcomes(await exported(up.data)) == ["ok"]
    assert len(list((up.data / "workers").iterdir())) == 1
    await up.start()
    assert len(list((up.data / "workers").iterdir())) == 1
    assert (await (await up.line()).call("two"))["result"]["content"][0]["text"] == "two"


async def test_worker_ended_from_outside_finishes_what_it_serves_and_is_replaced(start: Start, tmp_path: Path) -> None:
    up: Workers = await start()
    before = up.pids()
    line = await up.line(2)
    call = asyncio.create_task(line.call("hold 1"))

    async def under_way() -> bool:
        return len(read_notes(tmp_path / "notes")) == 1

    await until(under_way, "the call is upstream")
    psutil.Process(before[2]).terminate()
    assert (await call)["result"]["content"][0]["text"] == "hold 1"
    await gone(before[2])
    await up.replaced(2, before[2])
    assert up.pids()[1] == before[1]
    assert [line["end"] for line in up.said()] == ["exit code 0"]


async def test_one_greeting_and_every_log_line_says_whose_it_is(tmp_path: Path) -> None:
    config = tmp_path / "fulcrum.toml"
    config.write_text('[[server]]\nname = "closed"\nurl = "http://127.0.0.1:9/mcp"\n')
    port = free_port()
    command = [
        *FULCRUM, "up", "--workers", "2", "--config", str(config), "--data", str(tmp_path / "data"), "--anonymous",
        "dev", "--http", f"127.0.0.1:{port}", "--grpc", f"127.0.0.1:{free_port()}",
    ]  # fmt: skip
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=err)
        try:

            async def greeted() -> bool:
                logged = (tmp_path / "err").read_text().count("catalog not refreshed") >= 2
                return logged and "VS Code" in (tmp_path / "out").read_text()

            await until(greeted, "the greeting")
        finally:
            process.terminate()
            assert await process.wait() == 0
    said = (tmp_path / "out").read_text()
    assert said.count("fulcrum 0.1.0 at http://127.0.0.1:") == 1
    assert said.count("✘ closed") == 1
    assert said.count("the admin key, made just now") == 1
    lines = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert {line["worker"] for line in lines} == {1, 2}


@pytest.mark.parametrize(
    ("file", "options", "code", "words"),
    [
        ("[[server]]\nnme = 1\n", [], 2, 'unknown key "nme"'),
        ("", ["--policies", "."], 2, "broken.rego"),
        ("", ["--http", "127.0.0.1:{taken}"], 3, "cannot listen there"),
        ("", ["--workers", "0"], 2, "--workers"),
    ],
)
async def test_what_cannot_start_says_why_once(
    tmp_path: Path, file: str, options: list[str], code: int, words: str
) -> None:
    (tmp_path / "fulcrum.toml").write_text(file)
    (tmp_path / "broken.rego").write_text("package fulcrum.policies.broken\n\nallow if\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [option.format(taken=taken.getsockname()[1]) for option in options]
        command = [
            *FULCRUM, "up", "--workers", "2", "--config", "fulcrum.toml", "--data", "data", "--http",
            f"127.0.0.1:{free_port()}", "--grpc", f"127.0.0.1:{free_port()}", *given,
        ]  # fmt: skip
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
    assert done.returncode == code, done.stderr
    assert done.stderr.count(words) == 1, done.stderr
    assert done.stdout == ""
