"""The supervisor over workers that serve nothing: starts, greetings, deaths, silence, signals."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from governed_processes import until

pytestmark = [pytest.mark.service, pytest.mark.anyio]

FAKE = Path(__file__).parents[1] / "peers" / "fake_worker.py"
Begin = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Run:
    """One supervisor."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.process = process

    def notes(self) -> list[tuple[int, int, str]]:
        """(number, pid, what) in order."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        parts = [line.split(" ", 2) for line in lines]
        return [(int(number), int(pid), what) for number, pid, what in parts]

    def log(self) -> list[dict[str, Any]]:
        """The structured lines."""
        lines = (self.folder / "err").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def noted(self, what: str, times: int = 1) -> None:
        """Wait until so many have noted this."""

        async def there() -> bool:
            return sum(said == what for _, _, said in self.notes()) >= times

        await until(there, what)

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    runs: list[Run] = []

    async def start(how: str, workers: int = 2) -> Run:
        with (tmp_path / "err").open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(FAKE), "supervise", how, str(workers), str(tmp_path), stderr=err
            )
        runs.append(Run(tmp_path, process))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.returncode is None:
            run.process.kill()
            await run.process.wait()
        for _, pid, _ in run.notes():
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_all_workers_are_greeted_when_all_are_ready_and_end_on_a_signal(
    begin: Begin, number: signal.Signals
) -> None:
    run: Run = await begin("well", 3)
    await run.noted("greeted 1 ready, 2 ready, 3 ready", 3)
    run.process.send_signal(number)
    assert await run.ended() == 0
    assert sorted(worker for worker, _, what in run.notes() if what == "ended") == [1, 2, 3]
    assert run.log() == []
    assert list((run.folder / "data" / "workers").iterdir()) == []


async def test_ctrl_c_in_the_terminal_reaches_a_worker_once(begin: Begin) -> None:
    run: Run = await begin("well")
    await run.noted("greeted 1 ready, 2 ready", 2)
    for _, pid, what in run.notes():
        if what == "ready":
            psutil.Process(pid).send_signal(signal.SIGINT)  # what the terminal does
    run.process.send_signal(signal.SIGINT)
    assert await run.ended() == 0
    assert [what for _, _, what in run.notes()].count("ended") == 2


async def test_worker_that_dies_is_replaced_and_told_so(begin: Begin) -> None:
    run: Run = await begin("dies once")
    await run.noted("again", 2)
    run.process.terminate()
    assert await run.ended() == 0
    assert [line["end"] for line in run.log()] == ["exit code 7"] * 2


async def test_workers_that_never_get_ready_stop_all_after_three_deaths(begin: Begin) -> None:
    run: Run = await begin("dies")
    assert await run.ended() == 3
    assert [what for _, _, what in run.notes()] == ["dies"] * 3
    said = (run.folder / "err").read_text()
    assert "worker 1 ended 3 times before it was ready (the last: exit code 1); what it said stands above" in said


async def test_command_that_says_why_it_cannot_start_is_not_tried_again(begin: Begin) -> None:
    run: Run = await begin("refuses")
    assert await run.ended() == 2
    assert (run.folder / "err").read_text() == ""


async def test_workers_that_serve_go_on_when_another_cannot_be_started(begin: Begin) -> None:
    run: Run = await begin("second never")

    async def tried() -> bool:
        return len(run.log()) >= 4

    await until(tried, "the second worker is tried again and again")
    assert [what for _, _, what in run.notes()] == ["ready"]
    run.process.terminate()
    assert await run.ended() == 0
    assert [what for _, _, what in run.notes()] == ["ready", "ended"]


@pytest.mark.parametrize(("how", "at"), [("silent", "time.sleep"), ("busy", "while True")])
async def test_worker_without_a_sign_of_life_is_ended_whether_it_works_or_not(begin: Begin, how: str, at: str) -> None:
    run: Run = await begin(how)
    await run.noted("again", 2)
    if how == "silent":
        assert [line["event"] for line in run.log()].count("worker is silent: ended") == 2
    replaced = [line for line in run.log() if line["event"] == "worker ended and is replaced"]
    assert len(replaced) == 2
    for line in replaced:
        assert line["end"] == "ended by its watchdog: no sign of life for too long"
        assert "fake_worker.py" in line["traceback"]
        assert at not in line["traceback"], "places only"
    run.process.terminate()
    assert await run.ended() == 0


async def test_worker_that_is_crowded_out_is_not_taken_for_one_that_hangs(begin: Begin) -> None:
    run = await begin("crowded out")
    await run.noted("went on", times=2)
    assert not [line for line in run.log() if "ended" in line["event"]]


async def test_supervisor_killed_ends_its_workers(begin: Begin) -> None:
    run: Run = await begin("well")
    await run.noted("greeted 1 ready, 2 ready", 2)
    run.process.kill()
    await run.noted("ended", 2)
    pids = [pid for _, pid, what in run.notes() if what == "ended"]

    async def gone() -> bool:
        return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)

    await until(gone, "no worker is left")
