"""Two gateways, 64 calls at a time each, one server, gateways killed: nothing overspent, nothing left held."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract.redis_books import open_books
from servers.valkey import ValkeyServer
from service.shared_budget_worker import EACH, SHARED, short

from fulcrum_adapters.redis import RedisLedger
from fulcrum_mcp.core.budget import Expire
from fulcrum_mcp.core.window import window_at

pytestmark = [pytest.mark.service, pytest.mark.parts]

WORKER = Path(__file__).with_name("shared_budget_worker.py")
GATEWAYS = 2
SECOND = 1_000_000_000


@dataclass
class Asked:
    """A call as the trace tells it; `spent` is what it really cost, `most` what the books may say."""

    writer: str
    at: int
    bucket: str
    cost: int
    end: str
    actual: int
    admitted: bool = False
    refused: bool = False
    ended: bool = False

    @property
    def spent(self) -> int:
        if not self.admitted:
            return 0
        return self.actual if self.ended or self.end == "L" else self.cost


@dataclass
class Story:
    calls: dict[str, Asked]
    lines: int
    twice: int
    killed: set[str]


class Run:
    """Two gateways until they have done so many operations; `kills` of them are killed and replaced."""

    def __init__(self, url: str, folder: Path, mode: str) -> None:
        self.url, self.folder, self.mode = url, folder, mode
        self.short = short(mode)
        self.names: list[str] = []
        self.killed: set[str] = set()
        self.given: dict[str, tuple[int, int]] = {}
        self.overdrawn = 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, first: int, operations: int) -> None:
        name = f"w{len(self.names)}"
        self.names.append(name)
        self.given[name] = (first, operations)
        words = [self.url, name, str(first), str(operations), self.mode, str(self.trace(name))]
        self.processes[name] = subprocess.Popen([sys.executable, str(WORKER), *words], stdout=subprocess.DEVNULL)

    def trace(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def done(self, names: Iterable[str]) -> int:
        return sum(self.trace(name).read_bytes().count(b"\n") for name in names if self.trace(name).exists())

    def play(self, operations: int, kills: int, chance: random.Random) -> Story:
        books = open_books(self.url, at=time.time_ns() - 10 * SECOND)
        ledger = RedisLedger(books)
        try:
            for _ in range(GATEWAYS):
                self.start(0, operations // GATEWAYS)
            marks = sorted(chance.randint(operations // 20, operations * 9 // 10) for _ in range(kills))
            while self.processes:
                self.look(ledger)
                if marks and self.done(self.names) >= marks[0]:
                    marks.pop(0)
                    self.kill(chance)
                for name, process in list(self.processes.items()):
                    if process.poll() is not None:
                        assert process.returncode == 0, f"gateway {name} ended with {process.returncode}"
                        del self.processes[name]
                time.sleep(0.02)
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
            books.close()
        return self.told()

    def kill(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self.processes))
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        self.killed.add(name)
        first, quota = self.given[name]
        said = self.trace(name).read_text().splitlines() if self.trace(name).exists() else []
        if said:
            first = int(said[-1].split()[1].rpartition("-")[2])
        self.start(first, max(quota - len(said), 1))

    def look(self, ledger: RedisLedger) -> None:
        """What the books say while they change: never more than the limit."""
        for usage in ledger.usage([self.short], time.time_ns()):
            self.overdrawn += usage.committed["calls"] + usage.reserved["calls"] > self.short.limits["calls"]

    def told(self) -> Story:
        calls: dict[str, Asked] = {}
        kinds: Counter[str] = Counter()
        for name in self.names:
            for line in self.trace(name).read_text().splitlines() if self.trace(name).exists() else ():
                kind, call, *rest = line.split()
                kinds[kind] += 1
                if kind == "Q":
                    at, bucket, cost, end, actual = rest
                    calls[call] = Asked(name, int(at), bucket, int(cost), end, int(actual))
                elif kind == "A":
                    calls[call].admitted = True
                elif kind in {"X", "F"}:
                    calls[call].refused = True
                elif kind == "D":
                    calls[call].ended = True
        return Story(calls, sum(kinds.values()), kinds["T"], self.killed)


def wrongs(url: str, run: Run, story: Story) -> set[str]:
    """Everything that the books or the gateways have wrong, once every reservation has ended."""
    books = open_books(url)
    ledger = RedisLedger(books)
    try:
        while ledger.apply([Expire(time.time_ns() + 3_600 * SECOND)])[0].count:  # type: ignore[union-attr]
            pass
        found = {"twice"} if story.twice else set[str]()
        if run.overdrawn or overspent(run, story):
            found.add("overspent")
        if held(ledger, run, story):
            found.add("leaked")
        if differ(ledger, story):
            found.add("books differ")
        refused = sum(call.refused for call in story.calls.values())
        if not len(story.calls) // 10 < refused < len(story.calls) * 9 // 10:
            found.add(f"nothing tried: {refused} of {len(story.calls)} refused")
        return found
    finally:
        books.close()


def overspent(run: Run, story: Story) -> bool:
    """By what gateways really let pass, whatever the books say."""
    windows: Counter[int] = Counter()
    buckets: Counter[str] = Counter()
    for call in story.calls.values():
        if call.admitted and call.end != "R":
            windows[window_at(run.short.period, run.short.timezone, call.at).start] += 1
        buckets[call.bucket] += call.spent
    return max(windows.values()) > run.short.limits["calls"] or max(buckets.values()) > SHARED.limits["usd_micros"]


def held(ledger: RedisLedger, run: Run, story: Story) -> bool:
    moments = {call.at for call in story.calls.values()}
    windows = {window_at(run.short.period, run.short.timezone, at).start for at in moments}
    usages = [usage for at in windows for usage in ledger.usage([run.short], at)]
    usages += ledger.usage([SHARED, EACH], max(moments))
    return any(sum(usage.reserved.values()) for usage in usages) or any(ledger.open(name) for name in run.names)


def differ(ledger: RedisLedger, story: Story) -> bool:
    """The books of a gateway that was not killed are exact; of a killed one between what it spent and asked."""
    booked = {usage.bucket: usage.committed["usd_micros"] for usage in ledger.usage([EACH], time.time_ns())}
    for writer in {call.writer for call in story.calls.values()}:
        mine = [call for call in story.calls.values() if call.writer == writer]
        least = sum(call.spent for call in mine)
        most = sum(call.cost for call in mine if not call.refused) if writer in story.killed else least
        if not least <= booked.get(writer, 0) <= most:
            return True
    return False


def played(
    server: ValkeyServer, folder: Path, operations: int, kills: int, mode: str = "sound"
) -> tuple[Story, set[str]]:
    run = Run(server.url, folder, mode)
    story = run.play(operations, kills, random.Random(operations))
    return story, wrongs(server.url, run, story)


@pytest.mark.parametrize(("mode", "caught"), [("raced", "overspent"), ("leaky", "leaked")])
def test_checker_catches_what_is_planted(own_valkey: ValkeyServer, tmp_path: Path, mode: str, caught: str) -> None:
    for attempt in range(4):
        own_valkey.restart(empty=True)
        folder = tmp_path / f"run{attempt}"
        folder.mkdir()
        if caught in played(own_valkey, folder, 8_000, 0, mode)[1]:
            return
    pytest.fail(f"{mode}: not seen")


def test_gateways_that_share_a_ledger_neither_overspend_nor_leak(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    story, wrong = played(own_valkey, tmp_path, 20_000, 3)
    assert wrong == set()
    assert story.lines >= 20_000


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_gateways_that_share_a_ledger_for_long_neither_overspend_nor_leak(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    story, wrong = played(own_valkey, tmp_path, 200_000, 20)
    assert wrong == set()
    assert story.lines >= 200_000
