"""Sums that do not depend on the order, the batches or the processors by which records arrive."""

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import pytest
from postgres_rig import superuser

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.spending import forget, merge
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.books import Books, Place, book_of
from fulcrum_mcp.core.budget import Amounts, Budget, Scope
from fulcrum_mcp.core.window import window_at
from fulcrum_mcp.ports import ArchivedRecord, Spend

pytestmark = [pytest.mark.service, pytest.mark.parts]

SECOND = 1_000_000_000
MICROS = 1_000_000
NOW = 1_800_000_000 * SECOND + 17 * SECOND
DAY = Budget("b-day", "acme", "daily", Scope("agent"), {"calls": 1000, "tokens": 10**9}, "day")
EVER = Budget("b-ever", "", "in all", Scope("global"), {"usd_micros": 10**12}, "infinite")
BUDGETS = (DAY, EVER)


class Case(NamedTuple):
    records: list[ArchivedRecord]
    spent: dict[Place, tuple[int, ...]]
    open: dict[str, tuple[Amounts, tuple[Place, ...]]]
    taints: set[tuple[str, str, str]]
    counts: Counter[tuple[str, str, str]]


def record(call: str, spend: Spend | None, *, at: int = NOW, leg: int = 0, **members: str | None) -> ArchivedRecord:
    known: dict[str, str | None] = {"tenant": "acme", "effect": None, "outcome": None, "tool": "read", **members}
    return ArchivedRecord(
        id=f"{call}-{known['effect']}-{known['outcome']}-{leg}",
        chain=f"w1.{known['tenant']}",
        seq=1,
        tenant=known["tenant"] or "",
        type="",
        time=at // 1000,
        prev="",
        hash="",
        subject=call,
        leg=leg,
        decision=None,
        agent=None,
        key=None,
        server="files",
        tool=known["tool"],
        effect=known["effect"],
        outcome=known["outcome"],
        duration_us=None,
        size=None,
        cost={},
        policy=None,
        code=None,
        spend=spend,
        line=b"",
    )


def places(at: int = NOW, bucket: str = "bot") -> tuple[Place, ...]:
    start = window_at("day", "UTC", at).start
    return (Place("acme", "b-day", bucket, start), Place("", "b-ever", "global", 0))


def decided(
    call: str,
    amounts: Amounts,
    *,
    at: int = NOW,
    subject: str = "key:k1",
    taints: tuple[str, ...] = (),
    bucket: str = "bot",
) -> ArchivedRecord:
    return record(call, Spend(subject, places(at, bucket), amounts, None, taints), at=at, effect="allow")


def finished(call: str, charged: Amounts | None, *, at: int = NOW, taints: tuple[str, ...] = ()) -> ArchivedRecord:
    return record(call, Spend(charged=charged, taints=taints), at=at, outcome="ok")


def made_up(chance: random.Random, calls: int) -> Case:
    """Calls with and without an end, with what the books must say of them."""
    case = Case([], {}, {}, set(), Counter())
    sums: dict[Place, list[int]] = defaultdict(lambda: [0] * 6)
    for number in range(calls):
        call, subject = f"call-{number}", f"{chance.choice(['key', 'envelope'])}:{chance.randrange(3)}"
        estimate = Amounts(1, chance.randrange(50), 5, 5, 0, 0)
        label = (f"l{chance.randrange(4)}",) if chance.random() < 0.3 else ()
        bucket = f"bot{chance.randrange(3)}"
        case.records.append(decided(call, estimate, subject=subject, taints=label, bucket=bucket))
        case.counts["acme", subject, "files__read"] += 1
        case.taints.update(("acme", subject, each) for each in label)
        if chance.random() < 0.2:
            case.open[call] = (estimate, places(bucket=bucket))
            continue
        actual = Amounts(chance.randrange(2), chance.randrange(90), chance.randrange(9), 0, 7, 1)
        label = (f"r{chance.randrange(4)}",) if chance.random() < 0.3 else ()
        case.records.append(finished(call, actual, taints=label))
        case.taints.update(("acme", subject, each) for each in label)
        for place in places(bucket=bucket):
            sums[place] = [a + b for a, b in zip(sums[place], actual, strict=True)]
    case.spent.update({place: tuple(values) for place, values in sums.items()})
    return case


def batches(records: Sequence[ArchivedRecord], chance: random.Random) -> Iterator[list[ArchivedRecord]]:
    at = 0
    while at < len(records):
        size = chance.randrange(1, 40)
        yield list(records[at : at + size])
        at += size


def store(database: Database, records: Sequence[ArchivedRecord]) -> None:
    with database.session("fulcrum_ingest") as session:
        merge(session, records)


def said(books: Books) -> tuple[object, ...]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for tenant, subject, tool, calls, _ in books.past.calls:
        counts[tenant, subject, tool] += calls
    return (
        {spent.place: tuple(spent.amounts) for spent in books.spent},
        {call.call: (call.amounts, tuple(sorted(call.places))) for call in books.unsettled},
        {(tenant, subject, label) for tenant, subject, label, _ in books.past.taints},
        counts,
    )


def wanted(case: Case) -> tuple[object, ...]:
    opened = {call: (amounts, tuple(sorted(where))) for call, (amounts, where) in case.open.items()}
    return (case.spent, opened, case.taints, case.counts)


@pytest.mark.parametrize("seed", range(4))
def test_the_books_are_the_same_in_whatever_order_and_batches(postgres_database: Database, seed: int) -> None:
    chance = random.Random(seed)
    case = made_up(chance, 150)
    if seed:
        chance.shuffle(case.records)
    for batch in batches(case.records, chance):
        store(postgres_database, batch)
    assert said(PostgresWriters(postgres_database).books(BUDGETS, NOW)) == wanted(case)


def test_many_processors_at_once_lose_nothing_and_never_clash(postgres_config: PostgresConfig) -> None:
    chance = random.Random(7)
    case = made_up(chance, 400)
    chance.shuffle(case.records)
    shares = [list(batches(case.records[n::4], random.Random(n))) for n in range(4)]
    faults: list[Exception] = []

    def work(share: list[list[ArchivedRecord]]) -> None:
        try:
            for batch in share:
                store(database, batch)
        except Exception as exc:  # noqa: BLE001 (told below)
            faults.append(exc)

    with closing(Database(postgres_config)) as database:
        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert faults == []
        assert said(PostgresWriters(database).books(BUDGETS, NOW)) == wanted(case)


def test_a_call_counts_at_its_estimate_until_its_cost_is_known(postgres_database: Database) -> None:
    writers = PostgresWriters(postgres_database)
    store(postgres_database, [decided("c1", Amounts(1, 70, 3, 4))])
    books = writers.books(BUDGETS, NOW)
    (open_call,) = books.unsettled
    assert (open_call.call, open_call.leg, open_call.tenant, open_call.writer) == ("c1", 0, "acme", "w1")
    accounts = {key[:4]: account.committed for key, account in book_of(books, BUDGETS).accounts.items()}
    assert accounts["acme", "b-day", "bot", "tokens"] == 7
    assert accounts["", "b-ever", "global", "usd_micros"] == 70
    store(postgres_database, [finished("c1", Amounts(1, 20))])
    books = writers.books(BUDGETS, NOW)
    assert books.unsettled == ()
    accounts = {key[:4]: account.committed for key, account in book_of(books, BUDGETS).accounts.items()}
    assert accounts["acme", "b-day", "bot", "tokens"] == 0
    assert accounts["", "b-ever", "global", "usd_micros"] == 20


def test_legs_refusals_and_free_ends_are_what_they_are(postgres_database: Database) -> None:
    """A later leg reserves nothing and counts as a call; a refused call counts nowhere."""
    store(
        postgres_database,
        [
            decided("c1", Amounts(1, 70)),
            record("c1", Spend("key:k1", places()), leg=1, effect="allow"),
            record("c2", Spend("key:k1", places(), taints=("secret",)), effect="deny"),
            record("c3", Spend("key:k1", (), Amounts(1)), effect="allow"),
            record("c4", None, effect="allow"),
            record("c4", None, outcome="ok"),
        ],
    )
    store(postgres_database, [finished("c1", Amounts(0)), finished("c3", Amounts(1))])
    books = PostgresWriters(postgres_database).books(BUDGETS, NOW)
    assert {spent.amounts for spent in books.spent} == {Amounts(0)}
    assert books.unsettled == ()
    assert books.past.taints == ()
    assert [calls for *_, calls, _ in books.past.calls] == [3]


def test_a_taint_of_a_result_is_known_before_the_call_is_settled(postgres_database: Database) -> None:
    store(postgres_database, [finished("c1", None, taints=("secret",), at=NOW)])
    assert PostgresWriters(postgres_database).books(BUDGETS, NOW).past.taints == ()
    store(postgres_database, [decided("c1", Amounts(1), subject="envelope:e1")])
    assert PostgresWriters(postgres_database).books(BUDGETS, NOW).past.taints == (
        ("acme", "envelope:e1", "secret", NOW),
    )


def test_windows_that_have_ended_and_budgets_that_are_gone_are_not_told(postgres_database: Database) -> None:
    before = NOW - 86_400 * SECOND
    store(postgres_database, [decided("c1", Amounts(1, 5), at=before), finished("c1", Amounts(1, 5), at=before)])
    store(postgres_database, [decided("c2", Amounts(1, 6), at=before)])
    store(postgres_database, [decided("c3", Amounts(1, 7)), finished("c3", Amounts(1, 7))])
    writers = PostgresWriters(postgres_database)
    books = writers.books([DAY], NOW)
    assert [(spent.place.starts, spent.amounts.usd_micros) for spent in books.spent] == [(places()[0].starts, 7)]
    assert books.unsettled == ()
    books = writers.books([EVER], NOW)
    assert [spent.amounts.usd_micros for spent in books.spent] == [12]
    assert [call.places for call in books.unsettled] == [(Place("", "b-ever", "global", 0),)]
    later = writers.books([EVER], NOW + 2 * 86_400 * SECOND)  # open for so long: told as a sum
    assert sorted(spent.amounts.usd_micros for spent in later.spent) == [6, 12]
    assert later.unsettled == ()
    store(postgres_database, [finished("c2", Amounts(1, 1))])
    later = writers.books([EVER], NOW + 2 * 86_400 * SECOND)
    assert [spent.amounts.usd_micros for spent in later.spent] == [13]
    assert writers.books([], NOW).spent == ()


def test_a_place_that_fits_several_shapes_of_its_budget_is_told_once(postgres_database: Database) -> None:
    writers = PostgresWriters(postgres_database)
    shapes = [DAY, replace(DAY, limits={"calls": 3}), replace(DAY, period="month"), replace(DAY, period="infinite")]
    first = window_at("month", "UTC", NOW).start
    for call, starts in (("day", places()[0].starts), ("month", first), ("ever", 0), ("ended", first + 3600 * SECOND)):
        spend = Spend(reserved=Amounts(2), places=(places()[0]._replace(starts=starts),))
        store(postgres_database, [record(call, spend, effect="allow"), finished(call, Amounts(2))])
        store(postgres_database, [record(f"open {call}", spend, effect="allow")])
    books = writers.books(shapes, NOW)
    wanted = sorted([0, first, places()[0].starts])
    assert sorted((spent.place.starts, spent.amounts.calls) for spent in books.spent) == [(at, 2) for at in wanted]
    assert sorted(place.starts for call in books.unsettled for place in call.places) == wanted
    accounts = book_of(books, shapes).accounts
    assert {key[4]: account.committed for key, account in accounts.items() if key[3] == "calls"} == dict.fromkeys(
        wanted, 4
    )


def test_a_keys_past_is_an_hour_and_an_envelopes_is_ninety_days(postgres_database: Database) -> None:
    for age, call in ((30, "new"), (4000, "old"), (91 * 86_400, "ancient")):
        at = NOW - age * SECOND
        for subject in ("key:k", "envelope:e"):
            store(
                postgres_database,
                [decided(f"{call}-{subject}", Amounts(1), at=at, subject=subject, taints=(f"t-{call}",))],
            )
    past = PostgresWriters(postgres_database).books((), NOW).past
    assert {(subject, label) for _, subject, label, _ in past.taints} == {
        ("key:k", "t-new"),
        ("envelope:e", "t-new"),
        ("envelope:e", "t-old"),
    }
    counts = {subject: (calls, at) for _, subject, _, calls, at in past.calls}
    assert counts == {"key:k": (1, NOW - 30 * SECOND), "envelope:e": (3, NOW - 30 * SECOND)}


def test_whatever_names_and_numbers_are_kept(postgres_database: Database) -> None:
    long = "ü☠'\\\"%s" * 2000
    huge = 2**63 - 1
    place = (Place("acme", "b-ever", long, 0),)
    for number in range(3):
        call = f"{long[:200]}{number}"
        store(
            postgres_database,
            [
                record(
                    call,
                    Spend(f"envelope:{long}", place, Amounts(huge, huge), None, (long,)),
                    effect="allow",
                    tool=long,
                ),
                record(call, Spend(charged=Amounts(huge, huge, huge, huge, huge, huge), taints=(long,)), outcome="ok"),
            ],
        )
    budget = Budget("b-ever", "acme", "x", Scope("envelope"), {"bytes": 1}, "infinite")
    books = PostgresWriters(postgres_database).books([budget], NOW)
    assert [(spent.place.bucket, spent.amounts.bytes) for spent in books.spent] == [(long, MAX_AMOUNT)]
    assert books.past.taints == (("acme", f"envelope:{long}", long, NOW),)
    store(postgres_database, [record("no-end", Spend("key:k", place, Amounts(huge)), effect="allow")])
    assert PostgresWriters(postgres_database).books([budget], NOW).unsettled[0].amounts.calls == MAX_AMOUNT


def test_text_that_jsonb_refuses_stops_nothing(postgres_database: Database) -> None:
    bad = "a\0b\ud800\\u0000"
    place = (Place("acme", "b-ever", bad, 0),)
    for call in ("c1", bad):
        decision = record(call, Spend(f"key:{bad}", place, Amounts(1), None, (bad,)), effect="allow", tool=bad)
        store(postgres_database, [decision])
        store(postgres_database, [record(call, Spend(charged=Amounts(1)), outcome="ok")])
    budget = Budget("b-ever", "acme", "x", Scope("envelope"), {"bytes": 1}, "infinite")
    books = PostgresWriters(postgres_database).books([budget], NOW)
    assert [spent.amounts.calls for spent in books.spent] == [2]
    assert books.unsettled == ()


def test_tenants_with_the_same_call_do_not_meet(postgres_database: Database) -> None:
    store(postgres_database, [decided("c1", Amounts(1, 70))])
    store(postgres_database, [record("c1", Spend(charged=Amounts(1, 1)), outcome="ok", tenant="other")])
    assert len(PostgresWriters(postgres_database).books(BUDGETS, NOW).unsettled) == 1


def test_what_no_longer_counts_is_forgotten(postgres_config: PostgresConfig, postgres_database: Database) -> None:
    """Ended windows, the past of keys and of old envelopes, halves that nothing will complete; nothing else."""
    old = NOW - 86_400 * SECOND
    for call, at in (("c1", old), ("c2", NOW)):
        store(postgres_database, [decided(call, Amounts(1), at=at), finished(call, Amounts(1), at=at)])
    store(postgres_database, [decided("open", Amounts(1), at=1), finished("orphan", Amounts(1), at=1)])
    with closing(superuser(postgres_config)) as connection:
        counted = "SELECT (SELECT count(*) FROM fulcrum.budget_spent), (SELECT count(*) FROM fulcrum.budget_ledger)"
        assert connection.execute(counted).fetchone() == (3, 2)
        with postgres_database.session("fulcrum_ingest") as session:
            forget(session)
        assert connection.execute(counted).fetchone() == (3, 1)
        connection.execute("UPDATE fulcrum.budget_spent SET touched = touched - interval '2 days'")
        with postgres_database.session("fulcrum_ingest") as session:
            forget(session, [Place("acme", "b-day", "bot", 0), Place("", "b-ever", "global", 0)])
        assert connection.execute(counted).fetchone() == (2, 1)
        assert connection.execute("SELECT call FROM fulcrum.budget_ledger").fetchall() == [("open",)]
        starts = connection.execute("SELECT max(starts) FROM fulcrum.budget_spent").fetchone()
        assert starts == (places()[0].starts,)


def test_a_window_that_another_shape_may_still_need_is_kept_while_any_window_lasts(
    postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    first = window_at("month", "UTC", NOW).start
    for call, starts in (("month", first), ("day", places()[0].starts)):
        spend = Spend(reserved=Amounts(2), places=(places()[0]._replace(starts=starts),))
        store(postgres_database, [record(call, spend, effect="allow"), finished(call, Amounts(2))])
    writers = PostgresWriters(postgres_database)
    writers.declare("w1", "run", {}, NOW, [DAY])
    writers.declare("w2", "run", {}, NOW, [replace(DAY, period="month")])
    with closing(superuser(postgres_config)) as connection:
        for days, left in ((2, 2), (400, 1)):
            connection.execute("UPDATE fulcrum.budget_spent SET touched = touched - make_interval(days => %s)", (days,))
            with postgres_database.session("fulcrum_ingest") as session:
                forget(session, [places()[0]])
            assert connection.execute("SELECT count(*) FROM fulcrum.budget_spent").fetchone() == (left,)
