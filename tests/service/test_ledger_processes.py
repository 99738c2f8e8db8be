"""Several processes on one ledger file: no overspend, no leak, also when they are killed in mid-transaction."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from service.ledger_worker import AT, CALLS, MONEY, open_store, reservation

from fulcrum_mcp.core.budget import Expire, Reserved, Settled

pytestmark = pytest.mark.service

WORKER = Path(__file__).with_name("ledger_worker.py")
PROCESSES = 8


@contextmanager
def workers(path: Path, rounds: int, limit: int, mode: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Started together, at one signal; none is left behind."""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(path), f"w{number}", str(rounds), str(limit), mode],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in started:
            assert said(process.stdout) == "ready"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def said(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def balances(path: Path) -> dict[str, tuple[int, int]]:
    """(committed, reserved) as an independent reader finds them."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT budget, committed, reserved FROM account").fetchall()
    finally:
        connection.close()
    return {budget: (committed, reserved) for budget, committed, reserved in rows}


def faults(path: Path, rounds: int, mode: str = "sound") -> set[str]:
    """Run the workers; say everything that the books have wrong afterwards. About half of the calls must be refused."""
    asked = PROCESSES * rounds
    limit = asked // 3
    with workers(path, rounds, limit, mode, PROCESSES) as started:
        counts = [json.loads(said(process.stdout)) for process in started]
    spent = {name: sum(count[name] for count in counts) for name in counts[0]}
    found = balances(path)
    wrong = {
        "failed": spent["failed"] > 0,
        "unanswered": spent["admitted"] + spent["refused"] != asked,
        "overspent": spent["calls"] > limit or spent["usd_micros"] > 4 * limit,
        "books differ": (found["calls"][0], found["money"][0]) != (spent["calls"], spent["usd_micros"]),
        "leaked": found["calls"][1] + found["money"][1] > 0,
        "nothing tried": spent["refused"] < asked // 4 or spent["admitted"] < asked // 4,
    }
    return {name for name, is_so in wrong.items() if is_so}


def test_checker_catches_a_planted_race(tmp_path: Path) -> None:
    caught: set[str] = set()
    for attempt in range(5):
        caught |= faults(tmp_path / f"ledger{attempt}.db", 100, "raced")
        if {"overspent", "books differ"} <= caught:
            return
    pytest.fail(f"the race was not seen: {caught}")


def test_eight_processes_on_one_file_neither_overspend_nor_leak(tmp_path: Path) -> None:
    assert faults(tmp_path / "ledger.db", 250) == set()


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
def test_eight_processes_with_many_reservations_neither_overspend_nor_leak(tmp_path: Path) -> None:
    assert faults(tmp_path / "ledger.db", 2_000) == set()


@pytest.mark.parametrize("round_", range(3))
def test_killed_processes_leave_whole_books_and_holds_that_expire(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "ledger.db"
    with workers(path, 0, 10_000, "hang", 4) as started:
        for number, process in enumerate(started):
            for _ in range(10 + 7 * number + round_):
                assert said(process.stdout)
            process.kill()
    store = open_store(path, "sound")
    held = sum(len(store.ledger.open(f"w{number}")) for number in range(4))
    assert balances(path)["calls"][1] == held > 0
    committed = balances(path)["calls"][0]
    assert store.ledger.apply([Expire(AT + 10**12)]) == [Settled(held)]
    assert balances(path)["calls"] == (committed + held, 0)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert [store.ledger.usage([budget], AT)[0].reserved for budget in (CALLS, MONEY)] == [
        {"calls": 0},
        {"usd_micros": 0},
    ]
    assert isinstance(store.ledger.apply([reservation("w9", 1, 10_000)])[0], Reserved)
    store.close()
