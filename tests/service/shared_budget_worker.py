"""One gateway's worth of calls on a shared ledger: `shared_budget_worker.py URL NAME FIRST OPERATIONS MODE TRACE`.

64 tasks reserve and settle through a real journal. Each step is appended to TRACE before (Q: asked, and how it ends) or
after (A: admitted, X: refused, F: failed, T: admitted twice, U: no answer) it happens, so that it survives kill -9.
MODE `raced` plants a check and a take that are two steps; MODE `leaky` a release that gives nothing back; `sound` is
the ledger as it is. It prints one JSON object.
"""

import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.redis import RedisConfig, RedisHistory, RedisLedger, RedisStore
from fulcrum_mcp.core.budget import (
    Amounts,
    Budget,
    Commit,
    Match,
    Operation,
    Outcome,
    Release,
    Reserve,
    Reserved,
    Scope,
)
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement

TASKS = 64
TTL = 90
SHARED = Budget("shared", "t", "shared", Scope("envelope"), {"usd_micros": 700}, "infinite")
EACH = Budget("each", "t", "each", Scope("agent"), {"usd_micros": 2**40, "calls": 2**40}, "infinite")


def short(mode: str) -> Budget:
    """So tight that it is always fought over where a fault is planted; else most calls go on to the other budgets."""
    return Budget("short", "t", "short", Scope("global"), {"calls": 3_000 if mode == "sound" else 400}, "2")


class RacedLedger(RedisLedger):
    """Planted: what is left is looked up first, and taken after, whatever it is by then."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        return super().apply([self._looked(one) if isinstance(one, Reserve) else one for one in operations])

    def _looked(self, operation: Reserve) -> Reserve:
        left = self.peek(operation.matches, operation.at)
        if any(one.left < getattr(operation.amounts, one.amount) for one in left):
            return operation
        return replace(
            operation, matches=tuple(Match(replace(budget, action="warn"), at) for budget, at in operation.matches)
        )


def ledger_of(store: RedisStore, mode: str) -> RedisLedger:
    if mode == "raced":
        return RacedLedger(store)
    if mode == "leaky":
        script, right = store._ledger, b"else a.reserved = math.max(a.reserved - held, 0) end"
        assert right in script.body
        script.body = script.body.replace(right, b"elseif not release then a.reserved = a.reserved - held end")
        script.sha = hashlib.sha1(script.body).hexdigest()
    return RedisLedger(store)


class QuietLog(MemoryAuditLog):
    """Records are not what this is about."""

    def prepare(self, drafts: object) -> Any:
        return drafts

    def write(self, block: object) -> None:
        pass

    def conclude(self, block: object, *, written: bool) -> None:
        pass


class Gateway:
    def __init__(self, url: str, name: str, first: int, operations: int, mode: str, trace: Path) -> None:
        self.name, self.number, self.last = name, first, first + operations
        self.store = RedisStore(RedisConfig(url, timeout=5.0))
        self.ledger = ledger_of(self.store, mode)
        self.short = short(mode)
        self.history = RedisHistory(self.store)
        self.done = 0
        self.operations = operations
        self.chance = random.Random(name)
        self.file = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, *words: object) -> None:
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())
        self.done += 1

    async def run(self) -> None:
        log = QuietLog()
        log.writer = self.name
        self.journal = Journal(self.ledger, log)
        self.journal.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(self.work())
        await self.journal.close()
        os.close(self.file)

    async def work(self) -> None:
        while self.done < self.operations:
            self.number += 1
            call, cost = f"{self.name}-{self.number}", self.chance.randint(1, 8)
            end = self.chance.choices(("C", "N", "R", "L"), (60, 12, 25, 3))[0]
            actual = {"C": self.chance.randint(0, cost), "R": 0}.get(end, cost)
            bucket = f"b{self.number // 200}"
            at = now_ns()
            self.say("Q", call, at, bucket, cost, end, actual)
            matches = (Match(self.short, "global"), Match(SHARED, bucket), Match(EACH, self.name))
            reserve = Reserve(call, 0, "t", self.name, matches, Amounts(1, cost), at, TTL)
            if await self.admitted(reserve):
                await self.act(reserve, end, actual)

    async def admitted(self, reserve: Reserve) -> bool:
        try:
            outcome = await self.journal.admit(reserve, lambda _: None, self.abandoned(reserve))  # type: ignore[arg-type,return-value]
        except Unavailable:
            self.say("F", reserve.call)
            return False
        admitted = isinstance(outcome, Reserved) and not outcome.repeated
        self.say("A" if admitted else "X", reserve.call)
        return admitted

    def abandoned(self, reserve: Reserve) -> Any:
        def abandon(outcome: Outcome | None) -> None:
            if isinstance(outcome, Reserved) and not outcome.repeated:
                self.journal.settle(Settlement(Release(reserve.call, 0, now_ns()), None))

        return abandon

    async def act(self, reserve: Reserve, end: str, actual: int) -> None:
        """What a gateway does with an admitted call, and a client that sends it again."""
        try:
            await self.meanwhile(reserve)
        except Unavailable:  # the journal waits a second at most, and a slow machine may need more
            self.say("U", reserve.call)
        if end == "L":
            return
        endings: dict[str, Commit | Release] = {
            "C": Commit(reserve.call, 0, Amounts(1, actual), now_ns()),
            "N": Commit(reserve.call, 0, None, now_ns()),
            "R": Release(reserve.call, 0, now_ns()),
        }
        self.say("D", reserve.call)
        self.journal.settle(Settlement(endings[end], None))

    async def meanwhile(self, reserve: Reserve) -> None:
        """Raises `Unavailable`."""
        luck = self.chance.random()
        if luck < 0.1:
            again = await self.journal.admit(reserve, lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]
            self.say("T" if not isinstance(again, Reserved) or not again.repeated else "S", reserve.call)
        elif luck < 0.15:
            await self.journal.run(lambda: self.history.count("t", f"key:{self.name}", "files__read", now_ns()))
            self.say("H", reserve.call)
        elif luck < 0.2:
            await self.journal.run(lambda: self.ledger.peek(reserve.matches, now_ns()))
            self.say("P", reserve.call)


def main() -> None:
    url, name, first, operations, mode, trace = sys.argv[1:]
    gateway = Gateway(url, name, int(first), int(operations), mode, Path(trace))
    asyncio.run(gateway.run())
    sys.stdout.write(json.dumps({"done": gateway.done, "faults": gateway.journal.faults}) + "\n")


if __name__ == "__main__":
    main()
