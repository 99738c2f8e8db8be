"""Takeover: who is taken over, by whom, and what is found open. One suite over every adapter."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from audit_trails import decided, finished
from postgres_rig import superuser

from fulcrum_adapters.memory.shared import MemoryRegistry
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.takeover import PostgresTakeover
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.ports import ArchivedRecord, OpenCall, StoredPlace, Takeover, WriterRegistry
from fulcrum_mcp.processor.archived import archived

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


@dataclass
class Rig:
    registry: WriterRegistry
    takeover: Takeover
    elapse: Callable[[int], object]
    """So many seconds pass in which `witness` is heard."""
    store: Callable[[str, Sequence[RecordDraft]], object]
    """The store now holds these records of a writer too."""
    now: int = NOW
    chains: dict[tuple[str, str], ChainWriter] = field(default_factory=dict[tuple[str, str], ChainWriter])

    def beat(self, writer: str) -> bool:
        return self.registry.beat(writer, self.now, streamed=True)

    def claim(self, taker: str, oldest: float = 0.0) -> str | None:
        return self.takeover.claim(taker, self.now, oldest)

    def dies(self, writer: str) -> None:
        """It was heard, and then not for more than a minute; `taker` and `other` go on."""
        self.beat(writer)
        self.passes(70)

    def passes(self, seconds: int) -> None:
        for _ in range(seconds // 10):
            self.elapse(10)
            for living in ("taker", "other"):
                self.beat(living)

    def chained(self, writer: str, drafts: Sequence[RecordDraft]) -> list[bytes]:
        return [
            self.chains.setdefault((writer, draft.tenant), ChainWriter(writer, draft.tenant)).add(draft)[0]
            for draft in drafts
        ]

    def open_calls(self, writer: str, after: StoredPlace | None = None) -> list[OpenCall]:
        """On all pages."""
        found: list[OpenCall] = []
        while True:
            page = self.takeover.unfinished(writer, after)
            found += [call for _, call in page.calls]
            if page.last is None:
                return found
            assert after is None or page.last > after
            after = page.last


def in_memory() -> Rig:
    memory = MemoryRegistry()

    def wait(seconds: int) -> None:
        made.now += seconds * SECOND

    lines: dict[str, list[ArchivedRecord]] = {}

    def store(writer: str, drafts: Sequence[RecordDraft]) -> None:
        data = {draft.id: draft.data for draft in drafts}
        mine = [one for one in map(archived, made.chained(writer, drafts)) if isinstance(one, ArchivedRecord)]
        lines.setdefault(writer, []).extend(mine)
        ends = {(one.tenant, one.subject, one.leg) for all_of in lines.values() for one in all_of if one.outcome}
        for name, written in lines.items():
            known = {call.call: call.data for _, call in memory.left.get(name, ())}
            memory.left[name] = [
                (
                    StoredPlace(one.chain, one.seq),
                    OpenCall(one.subject, one.leg or 0, one.tenant, data.get(one.id) or known.get(one.subject, b"")),
                )
                for one in sorted(written, key=lambda one: (one.chain, one.seq))
                if one.effect == "allow" and (one.tenant, one.subject, one.leg) not in ends
            ]

    made = Rig(memory, memory, wait, store)
    return made


@pytest.fixture(params=["memory", pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        yield in_memory()
        return
    database: Database = request.getfixturevalue("postgres_database")
    config: PostgresConfig = request.getfixturevalue("postgres_config")
    archive = PostgresArchive(database)
    with closing(superuser(config)) as connection:

        def elapse(seconds: int) -> None:
            connection.execute(
                "UPDATE fulcrum.writers SET seen_at = seen_at - make_interval(secs => %(s)s),"
                " retired_at = retired_at - make_interval(secs => %(s)s)",
                {"s": seconds},
            )
            connection.execute(
                "UPDATE fulcrum.beats SET silent_from = silent_from - make_interval(secs => %(s)s),"
                " silent_until = silent_until - make_interval(secs => %(s)s)",
                {"s": seconds},
            )

        def store(writer: str, drafts: Sequence[RecordDraft]) -> None:
            records = [one for one in map(archived, made.chained(writer, drafts)) if isinstance(one, ArchivedRecord)]
            assert len(records) == len(drafts)
            assert archive.store(records, []) == []

        made = Rig(PostgresWriters(database), PostgresTakeover(database), elapse, store)
        yield made


def test_nobody_is_taken_while_all_are_heard(rig: Rig) -> None:
    rig.passes(100)
    assert rig.claim("taker") is None


def test_a_writer_is_taken_once_it_was_not_heard_for_a_minute(rig: Rig) -> None:
    rig.beat("dead")
    rig.passes(50)
    assert rig.claim("taker") is None
    rig.passes(20)
    assert rig.claim("taker") == "dead"
    assert rig.claim("taker") is None
    assert rig.claim("other") is None


def test_a_writer_that_was_taken_is_told_so_and_stays_dead(rig: Rig) -> None:
    rig.dies("dead")
    assert rig.beat("taker")
    assert rig.claim("taker") == "dead"
    for _ in range(2):
        assert not rig.beat("dead")
    rig.registry.declare("dead", "run", {"dead.acme": 9}, rig.now)
    assert not any("dead" in why for why in rig.registry.missing("run", rig.now))
    assert not rig.beat("dead")


def test_a_writer_that_was_heard_again_in_time_is_not_taken(rig: Rig) -> None:
    rig.dies("late")
    assert rig.beat("late")
    assert rig.claim("taker") is None


def test_a_writer_with_a_spool_is_never_taken(rig: Rig) -> None:
    rig.registry.beat("spooled", rig.now)
    rig.passes(120)
    assert rig.claim("taker") is None


def test_what_it_wrote_must_have_left_the_stream(rig: Rig) -> None:
    rig.dies("dead")
    assert rig.claim("taker", oldest=30.0) is None
    rig.passes(30)
    assert rig.claim("taker", oldest=30.0) == "dead"


def test_one_that_ended_is_taken_too_for_what_it_could_not_write(rig: Rig) -> None:
    rig.beat("ended")
    rig.registry.retire("ended")
    assert rig.claim("taker") is None
    rig.passes(70)
    assert rig.claim("taker") == "ended"


def test_only_a_living_writer_takes(rig: Rig) -> None:
    rig.dies("dead")
    assert rig.claim("nobody") is None
    rig.registry.retire("taker")
    assert rig.claim("taker") is None
    assert rig.claim("other") == "dead"


def test_several_take_it_once(rig: Rig) -> None:
    takers = [f"taker{number}" for number in range(8)]
    rig.dies("dead")
    for taker in takers:
        rig.beat(taker)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(rig.claim, takers))
    assert (found.count("dead"), found.count(None)) == (1, 7)


def test_what_a_dead_taker_took_goes_on_after_the_taker_itself(rig: Rig) -> None:
    rig.dies("dead")
    rig.beat("first")
    assert rig.claim("first") == "dead"
    rig.passes(70)
    assert rig.claim("other", oldest=30.0) is None
    assert rig.claim("other") == "first"
    assert rig.claim("other") == "dead"
    assert rig.claim("other") is None


def test_what_a_taker_left_that_ended_goes_on_too(rig: Rig) -> None:
    rig.dies("dead")
    rig.beat("first")
    assert rig.claim("first") == "dead"
    rig.registry.retire("first")
    assert rig.claim("other") is None
    rig.passes(70)
    assert {rig.claim("other"), rig.claim("other"), rig.claim("other")} == {"dead", "first", None}


def test_one_that_is_done_is_taken_no_more(rig: Rig) -> None:
    rig.dies("dead")
    rig.beat("first")
    assert rig.claim("first") == "dead"
    rig.takeover.done("other", "dead")
    rig.takeover.done("first", "dead")
    rig.passes(70)
    assert rig.claim("other") == "first"
    assert rig.claim("other") is None


def test_calls_that_were_let_through_and_have_no_end_are_open(rig: Rig) -> None:
    left, other = decided("call_left", leg=2), decided("call_theirs", tenant="other")
    rig.store(
        "dead",
        [
            decided("call_done"),
            finished("call_done"),
            left,
            finished("call_left", leg=1),
            decided("call_denied", effect="deny"),
            other,
            finished("call_theirs"),
            decided("call_taken"),
        ],
    )
    rig.store("deader", [decided("call_of_another_writer")])
    rig.store("taker", [finished("call_taken", outcome="outcome_unknown")])
    assert rig.open_calls("dead") == [
        OpenCall("call_left", 2, "default", left.data),
        OpenCall("call_theirs", 0, "other", other.data),
    ]
    assert rig.open_calls("never_heard_of") == []


def test_the_search_goes_on_where_it_was_left(rig: Rig) -> None:
    calls = [decided(f"call_{number}") for number in range(5)]
    rig.store("dead", calls)
    assert [call.call for call in rig.open_calls("dead", StoredPlace("dead.default", 3))] == ["call_3", "call_4"]
    rig.store("taker", [finished("call_3")])
    assert [call.call for call in rig.open_calls("dead", StoredPlace("dead.default", 3))] == ["call_4"]
