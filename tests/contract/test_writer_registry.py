"""WriterRegistry: who must have spoken, and what must be stored, before lost books are made. One suite."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from postgres_rig import superuser

from fulcrum_adapters.memory.shared import MemoryRegistry
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.ports import WriterRegistry

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


@dataclass
class Rig:
    registry: WriterRegistry
    stored: Callable[[str, int], object]
    """The store now holds a chain up to a seq."""
    elapse: Callable[[int], object]
    """So many seconds pass in which one other writer, `witness`, goes on."""
    now: int = NOW

    def beat(self, writer: str) -> None:
        self.registry.beat(writer, self.now)

    def declare(self, writer: str, epoch: str, **heads: int) -> None:
        self.registry.declare(writer, epoch, {f"{writer}.{tenant}": seq for tenant, seq in heads.items()}, self.now)

    def missing(self, epoch: str = "run2") -> str:
        return "; ".join(self.registry.missing(epoch, self.now))


@pytest.fixture(params=["memory", pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        memory = MemoryRegistry()
        rig = Rig(memory, memory.stored.__setitem__, lambda _: None)

        def wait(seconds: int) -> None:
            rig.now += seconds * SECOND

        rig.elapse = wait
        yield rig
        return
    database: Database = request.getfixturevalue("postgres_database")
    config: PostgresConfig = request.getfixturevalue("postgres_config")
    with closing(superuser(config)) as connection:

        def stored(chain: str, seq: int) -> None:
            connection.execute(
                "INSERT INTO fulcrum.audit_chains (chain, tenant, size) VALUES (%s, %s, %s)"
                " ON CONFLICT (chain) DO UPDATE SET size = excluded.size",
                (chain, chain.partition(".")[2], seq),
            )

        def elapse(seconds: int) -> None:
            connection.execute("UPDATE fulcrum.writers SET seen_at = seen_at - make_interval(secs => %s)", (seconds,))
            connection.execute(
                "UPDATE fulcrum.beats SET silent_from = silent_from - make_interval(secs => %(s)s),"
                " silent_until = silent_until - make_interval(secs => %(s)s)",
                {"s": seconds},
            )

        yield Rig(PostgresWriters(database), stored, elapse)


def test_nobody_is_missing_where_nobody_writes(rig: Rig) -> None:
    assert rig.missing() == ""


def test_a_living_writer_must_have_declared_itself_for_this_run(rig: Rig) -> None:
    rig.beat("w1")
    assert "w1" in rig.missing()
    rig.declare("w1", "run1")
    assert "w1" in rig.missing("run2")
    assert rig.missing("run1") == ""
    rig.declare("w1", "run2")
    assert rig.missing("run2") == ""


def test_what_was_written_before_must_be_stored(rig: Rig) -> None:
    rig.declare("w1", "run2", acme=7, other=3)
    assert "w1.acme" in rig.missing()
    rig.stored("w1.acme", 6)
    rig.stored("w1.other", 9)
    assert "w1.acme" in rig.missing()
    assert "w1.other" not in rig.missing()
    rig.stored("w1.acme", 7)
    assert rig.missing() == ""


def test_a_chain_without_records_is_not_waited_for(rig: Rig) -> None:
    rig.declare("w1", "run2", acme=0)
    assert rig.missing() == ""


def test_a_later_declaration_counts_instead(rig: Rig) -> None:
    rig.declare("w1", "run1", acme=7)
    rig.declare("w1", "run2", acme=9)
    rig.stored("w1.acme", 8)
    assert "w1.acme" in rig.missing()
    rig.stored("w1.acme", 9)
    assert rig.missing() == ""


def test_a_writer_that_was_not_heard_for_a_minute_is_dead(rig: Rig) -> None:
    rig.beat("w1")
    rig.declare("w2", "run2", acme=5)
    rig.elapse(50)
    assert "w1" in rig.missing()
    assert "w2.acme" in rig.missing()
    rig.beat("w1")
    rig.elapse(20)
    assert "w1" in rig.missing()
    assert "w2" not in rig.missing()
    rig.elapse(50)
    assert rig.missing() == ""


def test_a_retired_writer_is_not_waited_for_until_it_declares_itself_again(rig: Rig) -> None:
    rig.declare("w1", "run1", acme=5)
    rig.registry.retire("w1")
    rig.registry.retire("w1")
    rig.registry.retire("never known")
    assert rig.missing() == ""
    rig.declare("w1", "run1")
    assert "w1" in rig.missing("run2")


def shapes(rig: Rig) -> set[tuple[str, str, str, str, tuple[tuple[str, int], ...], tuple[int, ...]]]:
    return {
        (each.tenant, each.id, each.period, each.timezone, tuple(sorted(each.limits.items())), each.thresholds)
        for each in rig.registry.declared()
    }


def test_what_writers_declare_of_their_budgets_is_known_to_all_and_outlives_them(rig: Rig) -> None:
    ever = Budget("b1", "acme", "ever", Scope("tool", "x"), {"calls": 10, "tokens": 7}, "infinite", thresholds=(50,))
    daily = Budget("b1", "acme", "daily", Scope("tenant"), {"calls": 3}, "day", timezone="Europe/Paris")
    rate = Budget("b2", "acme", "paced", Scope("tenant"))
    assert shapes(rig) == set()
    rig.registry.declare("w1", "run1", {}, rig.now, [ever, rate])
    rig.registry.declare("w1", "run1", {}, rig.now, [ever])
    rig.registry.declare("w2", "run1", {}, rig.now, [daily])
    known = {
        ("acme", "b1", "infinite", "UTC", (("calls", 10), ("tokens", 7)), (50,)),
        ("acme", "b1", "day", "Europe/Paris", (("calls", 3),), (80, 100)),
    }
    assert shapes(rig) == known
    rig.registry.retire("w1")
    rig.elapse(120)
    rig.registry.declare("w2", "run2", {}, rig.now)
    assert shapes(rig) == known
