"""The store stays small, and forgetting never reopens a window."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from contract.ledgers import CALLS, DAY, NOON, SECOND, apply, balance, commit, limited, reserve

from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.ledger import SqliteLedger
from fulcrum_adapters.sqlite.schema import SCHEMA, VERSION
from fulcrum_mcp.core.budget import Amounts, Budget, Expire, Rate, Refused, Reserved, Scope

HOUR = 3_600 * SECOND
MINUTELY = replace(limited(CALLS, calls=1), period="minute")


class Clock:
    """Running time, in steps of the forgetter's pause."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(WalDatabase(tmp_path / "ledger.db", SCHEMA, VERSION), keep=86_400, monotonic=clock)
    yield opened
    opened.close()


def run(ledger: SqliteLedger, clock: Clock, start: int, hours: int, budget: Budget = MINUTELY) -> None:
    """One call an hour, each an hour of running time later."""
    for hour in range(hours):
        clock.now += 3_600.0
        call = f"{start}-{hour}"
        at = start + hour * HOUR
        ledger.apply([reserve(call, budget, at=at), commit(call, at=at)])


def rows(tmp_path: Path, table: str) -> int:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


@pytest.mark.parametrize("table", ["hold", "account"])
def test_what_is_older_than_it_must_be_kept_is_forgotten(
    ledger: SqliteLedger, clock: Clock, tmp_path: Path, table: str
) -> None:
    run(ledger, clock, NOON, 100)
    assert 24 <= rows(tmp_path, table) <= 28


def test_forgotten_window_is_refused_when_the_clock_goes_back(ledger: SqliteLedger, clock: Clock) -> None:
    run(ledger, clock, NOON, 100)
    assert balance(ledger, MINUTELY, NOON) == {"calls": (0, 0)}
    outcome = apply(ledger, reserve("late", MINUTELY, at=NOON))
    assert isinstance(outcome, Refused)
    assert (outcome.action, outcome.left) == ("hard", 0)
    warn = replace(MINUTELY, action="warn")
    assert isinstance(apply(ledger, reserve("warned", warn, at=NOON)), Reserved)


def test_forgotten_rate_gives_nothing_away_when_the_clock_goes_back(ledger: SqliteLedger, clock: Clock) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(10, 60, 3))
    ledger.apply([reserve("a", rated)])
    run(ledger, clock, NOON, 100)
    assert isinstance(apply(ledger, reserve("late", rated, at=NOON)), Refused)
    assert isinstance(apply(ledger, reserve("now", rated, at=NOON + 100 * HOUR)), Reserved)


def test_clock_that_jumps_far_ahead_for_a_while_does_not_take_todays_windows_with_it(
    ledger: SqliteLedger, clock: Clock
) -> None:
    one = limited(CALLS, calls=1)
    ledger.apply([reserve("a", one), commit("a")])
    for number in range(10):
        clock.now += 30.0
        ledger.apply([reserve(f"far{number}", one, at=NOON + 30_000 * DAY)])
    assert balance(ledger, one) == {"calls": (1, 0)}
    assert isinstance(apply(ledger, reserve("b", one, at=NOON + SECOND)), Refused)
    assert isinstance(apply(ledger, reserve("c", one, at=NOON + DAY)), Reserved)


def test_clock_that_was_never_set_does_not_hold_up_anything(ledger: SqliteLedger, clock: Clock, tmp_path: Path) -> None:
    run(ledger, clock, 5 * HOUR, 3)
    for _ in range(400 * 24):
        clock.now += 30.0
        apply(ledger, Expire(NOON))
    run(ledger, clock, NOON, 60)
    assert rows(tmp_path, "hold") <= 28


def test_open_hold_is_never_forgotten(ledger: SqliteLedger, clock: Clock) -> None:
    ledger.apply([reserve("parked", MINUTELY, at=NOON - HOUR, ttl=10**8)])
    run(ledger, clock, NOON, 100)
    assert ledger.open("w1") == [("parked", 0)]
    assert balance(ledger, MINUTELY, NOON - HOUR) == {"calls": (0, 1)}
    ledger.apply([commit("parked", at=NOON + 100 * HOUR)])
    assert ledger.open("w1") == []


def test_cost_that_comes_after_its_window_was_forgotten_is_not_booked_on_another(
    ledger: SqliteLedger, clock: Clock, tmp_path: Path
) -> None:
    priced = replace(limited(CALLS, usd_micros=9), period="minute")
    ledger.apply([reserve("parked", priced, ttl=10**8)])
    for _ in range(60):
        clock.now += 30.0
        apply(ledger, Expire(NOON + 3 * DAY))
    assert rows(tmp_path, "account") == 0
    later = NOON + 3 * DAY
    ledger.apply([reserve("new", priced, at=later)])
    ledger.apply([commit("parked", Amounts(usd_micros=5), at=later)])
    ledger.apply([reserve("other", priced, at=later + HOUR)])
    assert balance(ledger, priced, later) == balance(ledger, priced, later + HOUR) == {"usd_micros": (0, 0)}


def test_backlog_is_forgotten_in_small_steps(ledger: SqliteLedger, clock: Clock, tmp_path: Path) -> None:
    for start in range(0, 3_000, 500):
        calls = [f"c{n}" for n in range(start, start + 500)]
        ledger.apply([part for call in calls for part in (reserve(call), commit(call))])
    sizes = []
    for step in range(90):
        clock.now += 30.0
        ledger.apply([reserve(f"later{step}", at=NOON + 10 * DAY)])
        sizes.append(rows(tmp_path, "hold"))
    steps = [before - after for before, after in pairwise(sizes)]
    assert max(steps) <= 20
    assert sizes[-1] < sizes[0] - 1_000
