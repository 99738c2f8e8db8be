"""kill -9 of gateways under load, two `wrap`s and an `up` on one data folder: nothing is lost, nothing comes twice."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from audit_trails import DECIDED, FINISHED
from client_load import Load
from governed_processes import FULCRUM, Governed, Up, Wrap, marking_http, marking_stdio
from kill_checker import Evidence, faults, gather, planted_faults

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
calls = {tight}
period = "infinite"
action = "hard"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Field:
    """Three governed processes on one folder, with their load."""

    def __init__(self, folder: Path, url: str, tight: int) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "fulcrum.toml"
        self.config.write_text(CONFIG.format(url=url, tight=tight))
        self.notes = [folder / "http.notes", folder / "first.notes", folder / "second.notes"]
        log = folder / "log"
        self.up = Up(self.data, self.config, log)
        self.governed: list[Governed] = [
            self.up,
            Wrap("first", self.data, self.config, marking_stdio(self.notes[1]), log),
            Wrap("second", self.data, self.config, marking_stdio(self.notes[2]), log),
        ]
        self.loads = [Load(governed, seed) for seed, governed in enumerate(self.governed)]

    async def kill(self, which: int, chance: random.Random) -> None:
        """Kill one of them at a moment that nobody chose, and start it again."""
        await asyncio.gather(
            *(load.more(chance.randrange(5, 60) if load is self.loads[which] else 5) for load in self.loads)
        )
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        await self.governed[which].end(signal.SIGKILL)
        await self.governed[which].start()

    def evidence(self, lines: list[bytes]) -> Evidence:
        """What upstreams, clients, trail and ledger say."""
        answered = {text: answer for load in self.loads for text, answer in load.answered.items()}
        return gather(self.data, load(self.config, environ={}).budgets, self.notes, answered, lines)


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Callable[[int], Any]]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(marking_http(tmp_path / "http.notes"))

        async def start(tight: int) -> Field:
            made = Field(tmp_path, url, tight)
            for governed in made.governed:
                stack.push_async_callback(governed.close)
            await asyncio.gather(*(governed.start() for governed in made.governed))
            return made

        yield start


async def fulcrum(*arguments: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, [*FULCRUM, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def killed_again_and_again(start: Callable[[int], Any], kills: int, tight: int, capsys: Any) -> None:
    field: Field = await start(tight)
    chance = random.Random()
    order = [0, 1, 2]
    chance.shuffle(order)
    for load_ in field.loads:
        load_.start(3)
    for number in range(kills):
        await field.kill(order[number] if number < len(order) else chance.randrange(3), chance)
    await asyncio.gather(*(load_.more(10) for load_ in field.loads))
    await asyncio.gather(*(load_.stop() for load_ in field.loads))
    family = [psutil.Process(governed.process.pid) for governed in field.governed if governed.process is not None]
    family += [child for process in family for child in process.children(recursive=True)]
    assert [await governed.end(signal.SIGTERM) for governed in field.governed] == [0, 0, 0]
    assert psutil.wait_procs(family, timeout=10)[1] == []

    trail = field.folder / "trail.jsonl"
    await fulcrum("audit", "export", "--data", str(field.data), "-o", str(trail))
    await fulcrum("audit", "verify", str(trail), "--public-key", str(field.data / "keys" / "audit.pub"))
    evidence = field.evidence(trail.read_bytes().splitlines())
    assert faults(evidence) == []
    ends = [record["data"]["outcome"] for record in evidence.records if record["type"] == FINISHED]
    unknown = ends.count("outcome_unknown")
    lost = sum(load_.lost for load_ in field.loads)
    assert evidence.spent["tight"][0] == tight, "the load was to be larger than the budget"
    assert unknown > 0 or kills < 20, "no kill met a call under way"
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kills} kills: {len(evidence.seen)} calls seen upstream, {len(evidence.records)} records, "
            f"{unknown} outcome_unknown, {lost} calls without answer, spent {evidence.spent}\n"
        )
    for what, planted in planted_faults(evidence).items():
        assert faults(planted) != [], what


def _small() -> Evidence:
    """One call that was answered, one that a kill met, one that was denied."""
    records: list[dict[str, Any]] = []

    def add(kind: str, call: str, **data: Any) -> None:
        data = {"call_id": call, "leg": 0, **data}
        records.append(
            {"id": f"{kind} {call}", "chain": "w.default", "seq": len(records) + 1, "type": kind, "data": data}
        )

    for call, effect, outcome in (("a", "allow", "ok"), ("b", "allow", "outcome_unknown"), ("c", "deny", "")):
        add(DECIDED, call, effect=effect, arguments_mac=f"mac {call}")
        if outcome:
            add(FINISHED, call, outcome=outcome)
    seen = [("mark", "mac a"), ("tight", "mac b")]
    spent = {"all": (2, 0, 10), "tight": (1, 0, 1)}
    return Evidence(seen, {"mac a": "ok", "mac c": "denied"}, records, spent=spent, costing={"all": 2, "tight": 1})


@pytest.mark.parametrize("what", list(planted_faults(_small())))
def test_checker_finds_what_is_planted(what: str) -> None:
    assert faults(_small()) == []
    assert faults(planted_faults(_small())[what]) != []


@pytest.mark.timeout(60)
async def test_no_call_without_its_record_whoever_is_killed(
    field: Callable[[int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    await killed_again_and_again(field, 4, 30, capsys)


@pytest.mark.nightly
@pytest.mark.timeout(600)
async def test_no_call_without_its_record_after_twenty_kills(
    field: Callable[[int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    await killed_again_and_again(field, 20, 200, capsys)
