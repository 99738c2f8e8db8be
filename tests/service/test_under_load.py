"""A real gateway under load while something changes: its policies, the room on its disk, or nothing but time."""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from audit_trails import DECIDED
from governed_processes import Up, marking_http, until
from kill_checker import Evidence, faults, gather
from peers.marking_server import read_notes
from stalls import Stalls

from fulcrum_mcp.composition.audit import open_keys, open_trail
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.trail import TrailVerifier
from fulcrum_mcp.settings import load

pytestmark = [pytest.mark.service, pytest.mark.anyio, pytest.mark.timeout(300)]

CONFIG = """\
[[server]]
name = "marks"
url = "{url}"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000000
period = "infinite"
"""
POLICY = """\
package fulcrum.policies.{name}

import rego.v1

allow := true

warn contains {{"code": "version", "message": "{version}"}} if input.phase == "call"

deny contains {{"code": "version", "message": "{version}"}} if {{
	input.phase == "call"
	input.tool.name == "tight"
}}
"""
MIB = 2**20
STALL = 1.0
"""Seconds; a gateway of one machine denies after five in which its disk does not answer."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Loaded:
    """A gateway with clients that call it one after the other, and what they were told."""

    def __init__(self, folder: Path, url: str, policies: str) -> None:
        self.folder = folder
        self.config = folder / "fulcrum.toml"
        self.config.write_text(CONFIG.format(url=url))
        self.up = Up(folder / "data", self.config, folder / "log", policies)
        self.answered: dict[str, str] = {}
        self.refused: list[str] = []
        self.held_up: list[str] = []
        """Which of them while the machine stood still."""
        self.dropped: list[str] = []
        self.last = ""
        self.reason: dict[str, str] = {}
        self._number = 0
        self.stalls = Stalls(lambda: [os.getpid(), *([self.up.process.pid] if self.up.process else [])], folder)

    @property
    def process(self) -> psutil.Process:
        assert self.up.process is not None
        return psutil.Process(self.up.process.pid)

    async def call(self, tool: str = "mark") -> bool:
        self._number += 1
        text = f"text-{self._number}"
        began = time.monotonic()
        answer = await self.up.call(tool, text)
        if answer is None or "result" not in answer:
            self.dropped.append(f"{text}: {answer}")
            return False
        result = answer["result"]
        if not result.get("isError"):
            self.answered[text] = "ok"
            return True
        self.last = result["content"][0]["text"]
        self.reason = result["_meta"]["dev.fulcrum/decision"]["reasons"][0]
        if self.reason["code"] == "unavailable":
            self.refused.append(text)
            if self.stalls.between(began, time.monotonic()) > STALL:
                self.held_up.append(text)
        else:
            self.answered[text] = "denied"
        return False

    async def calls(self, number: int, clients: int) -> None:
        """So many calls by so many clients at once."""
        left = iter(range(number))

        async def client() -> None:
            for _ in left:
                await self.call()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def pace(self, per_second: float, done: asyncio.Event) -> None:
        """Begin a call at even intervals, whether or not the last one was answered, until `done`."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        async with asyncio.TaskGroup() as group:
            while not done.is_set():
                group.create_task(self.call())
                at += 1 / per_second
                await asyncio.sleep(at - loop.time())

    async def end(self) -> Evidence:
        """Stop it; everything is there, and as it should be."""
        assert await self.up.end(signal.SIGTERM) == 0, (self.folder / "log").read_text()
        data = self.folder / "data"
        keys = open_keys(data)
        with open_trail(data) as trail:
            assert trail.complete
            lines = list(export_trail(trail.reader, keys, None, "2026-08-01T12:00:00Z"))
        verifier = TrailVerifier(keys.key_id, keys.check)
        assert [fault for line in lines if (fault := verifier.feed(line)) is not None] == []
        assert verifier.finish() is None
        budgets = load(self.config, environ={}).budgets
        notes = self.folder / "http.notes"
        evidence = gather(data, budgets, [notes], self.answered, lines, self.refused)
        assert faults(evidence) == []
        return evidence


@asynccontextmanager
async def loaded(folder: Path, policies: str = "allow_all") -> AsyncIterator[Loaded]:
    async with marking_http(folder / "http.notes") as url:
        made = Loaded(folder, url, policies)
        try:
            await made.up.start()
            with made.stalls:
                yield made
        finally:
            await made.up.close()


async def test_a_full_disk_denies_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    async with loaded(tmp_path) as gateway:
        await gateway.calls(50, 4)
        assert gateway.dropped == []
        assert gateway.refused == gateway.held_up, gateway.last
        segment = max((tmp_path / "data" / "spool").rglob("*.seg"))
        room = segment.stat().st_size + 3000
        gateway.process.rlimit(psutil.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

        async def full() -> bool:
            return not await gateway.call()

        await until(full, "the disk is full")
        # What is smaller than the refused block may still have had room: from here on nothing has.
        gateway.process.rlimit(psutil.RLIMIT_FSIZE, (segment.stat().st_size, resource.RLIM_INFINITY))
        seen = len(read_notes(tmp_path / "http.notes"))
        began = time.monotonic()
        before = len(gateway.refused)
        await gateway.calls(20, 4)
        assert gateway.stalls.own(began, time.monotonic()) < 6, gateway.last
        assert len(gateway.refused) == before + 20
        assert "(unavailable)" in gateway.last
        assert len(read_notes(tmp_path / "http.notes")) == seen
        gateway.process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until(gateway.call, "calls are answered again")
        await gateway.calls(50, 4)
        await gateway.end()


class Policies:
    """A folder with two policies that say their version; it is swapped whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.live = folder / "live"

    def write(self, version: int, *, broken: bool = False) -> None:
        fresh = self._folder / f"version-{version}"
        fresh.mkdir()
        for name in ("one", "two"):
            text = POLICY.format(name=name, version=version) + ("allow if {" if broken and name == "two" else "")
            (fresh / f"{name}.rego").write_text(text)
        link = self._folder / "next"
        link.symlink_to(fresh, target_is_directory=True)
        link.rename(self.live)


async def test_thirty_reloads_under_load_drop_no_call_and_mix_no_decision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = Policies(tmp_path)
    policies.write(0)
    async with loaded(tmp_path, str(policies.live)) as gateway:
        done = asyncio.Event()
        calling = asyncio.create_task(gateway.pace(100, done))
        for version in range(1, 31):
            broken = version % 3 == 0
            policies.write(version, broken=broken)

            async def noticed(version: int = version, broken: bool = broken) -> bool:
                if broken:
                    return (tmp_path / "log").read_text().count("policies refused") >= version // 3
                await gateway.call("tight")
                return gateway.reason["message"] == str(version)

            await until(noticed, f"version {version} is {'refused' if broken else 'live'}")
        done.set()
        await calling
        evidence = await gateway.end()
    assert gateway.dropped == []
    assert gateway.refused == gateway.held_up, gateway.last
    said = [_versions(record["data"]) for record in evidence.records if record["type"] == DECIDED]
    assert len(said) >= len(gateway.answered) > 1000
    assert [versions for versions in said if len(versions) != 1] == []
    assert {next(iter(versions)) for versions in said} == {str(n) for n in range(31) if n == 0 or n % 3}
    with capsys.disabled():
        sys.stdout.write(f"\n30 reloads, 10 of them broken: {len(said)} calls, 0 dropped, 0 mixed\n")


def _versions(decided: Mapping[str, Any]) -> set[str]:
    """What the policies of one decision said about their version."""
    spoken = [*decided["warnings"], *(decided["reasons"] if decided["effect"] == "deny" else ())]
    assert len(spoken) in {2, 4}, "both policies speak"
    return {each["message"] for each in spoken}


async def stays_flat(folder: Path, calls: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Once pools and caches are filled, memory grows by no more than 5 %, and descriptors by none."""
    warm = 1 if calls > 100_000 else 6  # tenths; SQLite's caches are full after some 30,000 calls
    async with loaded(folder) as gateway:
        sizes: list[float] = []
        files: list[int] = []
        for _ in range(10):
            await gateway.calls(calls // 10, 16)
            sizes.append(gateway.process.memory_info().rss / MIB)
            files.append(gateway.process.num_fds())
        assert gateway.dropped == []
        assert len(gateway.refused) <= calls // 1000, gateway.last  # a disk may stall under other people's work
        assert len(read_notes(folder / "http.notes")) == calls - len(gateway.refused)
        await gateway.end()
    with capsys.disabled():
        figures = " ".join(f"{size:.1f}" for size in sizes)
        sys.stdout.write(f"\n{calls:,} calls: RSS {figures} MiB; descriptors {files}; {gateway.last}\n")
    assert sizes[-1] < sizes[warm] * 1.05
    assert files[-1] <= files[warm] + 2
    assert sizes[-1] < 120


async def test_memory_and_descriptors_stay_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await stays_flat(tmp_path, 20_000, capsys)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_memory_and_descriptors_stay_flat_over_many_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await stays_flat(tmp_path, 200_000, capsys)
