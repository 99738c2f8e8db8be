"""The ledger's law as a machine that Hypothesis drives: every step is compared with a model that fits on a screen."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from contract.ledgers import NOON, SECOND
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.budget import (
    Amounts,
    Budget,
    Commit,
    Expire,
    Match,
    Operation,
    Outcome,
    Release,
    Renew,
    Reserve,
    Reserved,
    Scope,
    Settled,
)
from fulcrum_mcp.ports import BudgetLedger

MINUTE = Budget("minute", "t", "minute", Scope("agent"), {"calls": 4, "usd_micros": 50}, "60")
HOURLY = Budget("hourly", "t", "hourly", Scope("server"), {"calls": 9}, "hour")
FOREVER = Budget("forever", "t", "forever", Scope("global"), {"usd_micros": 400}, "infinite")
BUDGETS = (MINUTE, HOURLY, FOREVER)
LENGTHS = {"minute": 60, "hourly": 3_600, "forever": 10**12}
WRITERS = ("w1", "w2", "w3")


@dataclass
class Held:
    at: int
    amounts: Amounts
    matches: tuple[Match, ...]
    writer: str
    expires: int
    open: bool = True
    expired: bool = False
    booked: Amounts = field(default_factory=lambda: Amounts(0))


class LedgerLaw(RuleBasedStateMachine):
    """Over the memory ledger; subclasses bring others."""

    overruns = False
    operations = 0

    def __init__(self) -> None:
        super().__init__()
        self.at = NOON
        self.held: dict[tuple[str, int], Held] = {}

    def ledger(self) -> BudgetLedger:
        if not hasattr(self, "_memory"):
            self._memory = MemoryLedger()
        return self._memory

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        type(self).operations += len(operations)
        return self.ledger().apply(operations)

    def used(self, budget: Budget, bucket: str, amount: str, at: int) -> int:
        length = LENGTHS[budget.id] * SECOND
        total = 0
        for held in self.held.values():
            same = any(m.budget.id == budget.id and m.bucket == bucket for m in held.matches)
            if same and held.at // length == at // length:
                total += getattr(held.amounts if held.open else held.booked, amount)
        return total

    def admissible(self, operation: Reserve) -> bool:
        for budget, bucket in operation.matches:
            for amount, limit in budget.limits.items():
                wanted = getattr(operation.amounts, amount)
                if wanted and self.used(budget, bucket, amount, operation.at) + wanted > limit:
                    return False
        return True

    @rule(
        wanted=st.lists(
            st.tuples(
                st.integers(0, 30),
                st.integers(0, 1),
                st.sets(st.sampled_from([0, 1, 2])),
                st.sampled_from(["a", "b"]),
                st.builds(Amounts, st.integers(0, 2), st.integers(0, 30)),
                st.sampled_from(WRITERS),
                st.integers(1, 90),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def reserve(self, wanted: list[tuple[int, int, set[int], str, Amounts, str, int]]) -> None:
        operations = [
            Reserve(
                f"c{call}", leg, "t", writer, tuple(Match(BUDGETS[i], bucket) for i in chosen), amounts, self.at, ttl
            )
            for call, leg, chosen, bucket, amounts, writer, ttl in wanted
        ]
        for operation, outcome in zip(operations, self.apply(operations), strict=True):
            place = (operation.call, operation.leg)
            known = self.held.get(place)
            if known is not None:
                assert outcome == Reserved(repeated=True, settled=not known.open)
            elif self.admissible(operation):
                assert isinstance(outcome, Reserved)
                assert not outcome.repeated
                expires = self.at + operation.ttl * SECOND
                held = Held(self.at, operation.amounts, operation.matches, operation.writer, expires)
                self.held[place] = held
            else:
                assert not isinstance(outcome, Reserved)

    @rule(
        call=st.integers(0, 30),
        leg=st.integers(0, 1),
        calls=st.integers(0, 3),
        micros=st.integers(0, 60),
        known=st.booleans(),
    )
    def commit(self, call: int, leg: int, calls: int, micros: int, known: bool) -> None:
        held = self.held.get((f"c{call}", leg))
        actual = Amounts(calls, micros)
        if held is not None and not self.overruns:
            actual = Amounts(min(calls, held.amounts.calls), min(micros, held.amounts.usd_micros))
        outcome = self.apply([Commit(f"c{call}", leg, actual if known else None, self.at)])[0]
        changes = held is not None and (held.open or (held.expired and known))
        assert isinstance(outcome, Settled)
        assert outcome.count == changes
        if held is not None and changes:
            held.open, held.expired, held.booked = False, False, actual if known else held.amounts

    @rule(call=st.integers(0, 30), leg=st.integers(0, 1))
    def release(self, call: int, leg: int) -> None:
        held = self.held.get((f"c{call}", leg))
        assert self.apply([Release(f"c{call}", leg, self.at)])[0] == Settled(int(held is not None and held.open))
        if held is None:
            self.held[f"c{call}", leg] = Held(self.at, Amounts(0), (), "", self.at, open=False)
        elif held.open:
            held.open, held.booked = False, Amounts(0)

    @rule(writer=st.sampled_from(WRITERS), ttl=st.integers(1, 90))
    def renew(self, writer: str, ttl: int) -> None:
        mine = [held for held in self.held.values() if held.open and held.writer == writer]
        assert self.apply([Renew(writer, self.at, ttl)])[0] == Settled(len(mine))
        for held in mine:
            held.expires = max(held.expires, self.at + ttl * SECOND)

    @rule()
    def expire(self) -> None:
        late = [held for held in self.held.values() if held.open and held.expires <= self.at]
        assert self.apply([Expire(self.at)])[0] == Settled(len(late))
        for held in late:
            held.open, held.expired, held.booked = False, True, held.amounts

    @rule(seconds=st.sampled_from([1, 7, 45, 60, 3_600, -1, -50]))
    def time_passes(self, seconds: int) -> None:
        self.at += seconds * SECOND

    @invariant()
    def balances_are_the_models_and_within_the_limits(self) -> None:
        for usage in self.ledger().usage(BUDGETS, self.at):
            for amount, limit in usage.budget.limits.items():
                total = usage.committed[amount] + usage.reserved[amount]
                assert total == self.used(usage.budget, usage.bucket, amount, self.at)
                assert self.overruns or total <= limit, f"overspent: {usage}"

    @invariant()
    def open_holds_are_the_models(self) -> None:
        for writer in WRITERS:
            wanted = [place for place, held in self.held.items() if held.open and held.writer == writer]
            assert sorted(self.ledger().open(writer)) == sorted(wanted)

    def teardown(self) -> None:
        self.at += 10_000 * SECOND
        self.apply([Expire(self.at)])
        leaked = [u for at in {held.at for held in self.held.values()} for u in self.ledger().usage(BUDGETS, at)]
        assert not any(value for usage in leaked for value in usage.reserved.values()), "a hold leaked"


class Crash(Exception):
    """The process dies here."""


class SqliteLaw(LedgerLaw):
    """Three processes' worth of connections on one file, any of which dies at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-law-"))
        self.stores = [SqliteStore(self.folder / "ledger.db") for _ in range(3)]
        self.turn = 0

    def ledger(self) -> BudgetLedger:
        self.turn = (self.turn + 1) % 3
        return self.stores[self.turn].ledger

    @rule(which=st.integers(0, 2))
    def reopen(self, which: int) -> None:
        self.stores[which].close()

    @rule(which=st.integers(0, 2), call=st.integers(0, 30), budget=st.sampled_from(BUDGETS))
    def die_in_mid_transaction(self, which: int, call: int, budget: Budget) -> None:
        amounts, matches = Amounts(1, 1), (Match(budget, "a"),)
        doomed = Reserve(f"c{call}", 0, "t", "w1", matches, amounts, self.at, 60)
        with suppress(Crash), self.stores[which].transaction():
            self.stores[which].ledger.apply([doomed, Commit(f"c{call}", 0, None, self.at)])
            raise Crash

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)


class MemoryOverruns(LedgerLaw):
    """Actual costs may exceed their estimates; balances must still be exact."""

    overruns = True


class SqliteOverruns(SqliteLaw):
    """The same over SQLite."""

    overruns = True
