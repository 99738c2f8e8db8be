"""One process of many on one ledger file: `python ledger_worker.py FILE NAME ROUNDS LIMIT MODE`.

It says that it is ready, waits for a line on stdin, then reserves in batches, and settles what was admitted: a third
is released, the rest committed at or below the estimate. It prints one JSON object. MODE `raced` plants the fault that
the test must catch: statements that read and statements that write, but no transaction around them. MODE `hang` never
ends: it is killed.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection
from typing import NoReturn

from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.budget import (
    Amounts,
    Budget,
    Commit,
    Match,
    Operation,
    Release,
    Reserve,
    Reserved,
    Scope,
)
from fulcrum_mcp.errors import Unavailable

AT = 1_795_521_600_000_000_000
CALLS = Budget("calls", "t", "calls", Scope("global"), {"calls": 0}, "infinite")
MONEY = Budget("money", "t", "money", Scope("global"), {"usd_micros": 0}, "infinite")
BATCH = 5


class RacedDatabase(WalDatabase):
    """Planted: no transaction."""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.read() as connection:
            yield connection


def open_store(path: Path, mode: str) -> SqliteStore:
    store = SqliteStore(path, busy_timeout=20.0)
    if mode == "raced":
        store._database.__class__ = RacedDatabase
    return store


def matches(limit: int) -> tuple[Match, ...]:
    """Two budgets that run out at about the same time: a call costs four on average."""
    calls, money = replace(CALLS, limits={"calls": limit}), replace(MONEY, limits={"usd_micros": 4 * limit})
    return (Match(calls, "global"), Match(money, "global"))


def reservation(name: str, number: int, limit: int) -> Reserve:
    return Reserve(f"{name}-{number}", 0, "t", name, matches(limit), Amounts(1, 1 + number % 7), AT, 60)


def settlement(call: str, number: int) -> Commit | Release:
    if number % 3 == 0:
        return Release(call, 0, AT)
    return Commit(call, 0, Amounts(1, 1 + number % 7 - number % 2 * (number % 7 > 0)), AT)


def work(store: SqliteStore, name: str, rounds: int, limit: int) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(("admitted", "refused", "failed", "calls", "usd_micros"), 0)
    for start in range(0, rounds, BATCH):
        wanted = [reservation(name, number, limit) for number in range(start, min(start + BATCH, rounds))]
        settlements: list[Operation] = []
        try:
            for number, outcome in enumerate(store.ledger.apply(wanted), start):
                if not isinstance(outcome, Reserved):
                    counts["refused"] += 1
                    continue
                counts["admitted"] += 1
                ending = settlement(f"{name}-{number}", number)
                settlements.append(ending)
                if isinstance(ending, Commit) and ending.actual is not None:
                    counts["calls"] += ending.actual.calls
                    counts["usd_micros"] += ending.actual.usd_micros
            store.ledger.apply(settlements)
        except Unavailable:
            counts["failed"] += 1
    return counts


def hang(store: SqliteStore, name: str, limit: int) -> NoReturn:
    number = 0
    while True:
        number += 1
        with store.transaction():
            store.ledger.apply([reservation(name, number, limit)])
            time.sleep(0.001 * (number % 3))
        if number % 2 == 0:
            store.ledger.apply([settlement(f"{name}-{number}", number)])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        time.sleep(0.002)


def main() -> None:
    path, name, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[5]
    rounds, limit = int(sys.argv[3]), int(sys.argv[4])
    store = open_store(path, mode)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if mode == "hang":
        hang(store, name, limit)
    sys.stdout.write(json.dumps(work(store, name, rounds, limit)) + "\n")
    store.close()


if __name__ == "__main__":
    main()
