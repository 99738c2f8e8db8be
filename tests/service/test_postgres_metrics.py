"""Metrics on plain Postgres: right numbers, one tenant's only, whatever the clocks say; partitions made and dropped."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from archive_rig import Author, call_drafts, now_us, put
from metrics_rig import FUNCTIONS, asked, fill, since_until
from postgres_rig import superuser

from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database, Role
from fulcrum_mcp.errors import Invalid, Unavailable

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.service, pytest.mark.parts]

DAY = 86_400_000_000
TABLES = ("tool_calls", "cost_events", "events")


@pytest.fixture
def archive(postgres_database: Database) -> PostgresArchive:
    return PostgresArchive(postgres_database)


@pytest.fixture
def root(postgres_config: PostgresConfig) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    connection = superuser(postgres_config)
    yield connection
    connection.close()


def test_an_hour_is_counted_right(postgres_database: Database, archive: PostgresArchive) -> None:
    fill(archive)
    since, _ = since_until()
    answers = asked(postgres_database, "default", "hour", minutes=(0, 60))
    assert [row[:4] for row in answers["tenant_calls"]] == [
        (since, "alice", "files", "read"),
        (since, "alice", "files", "write"),
        (since, "bob", "files", "read"),
        (since, "bob", "files", "write"),
    ]
    read, denied, failed, held = (row[4:] for row in answers["tenant_calls"])
    # calls, decisions, allowed, denied, held, ended, ok, errors, withheld, cancelled
    assert read[:10] == (15, 15, 15, 0, 0, 15, 12, 3, 0, 0)
    assert denied[:10] == (3, 3, 0, 3, 0, 0, 0, 0, 0, 0)
    assert failed[:10] == (3, 3, 3, 0, 0, 3, 0, 3, 0, 0)
    assert held[:10] == (3, 3, 0, 0, 3, 0, 0, 0, 0, 0)
    decision_us, duration_us, size, durations = read[10:]
    assert (decision_us, duration_us, size) == (15 * 70, 3 * (900 + 9_000 + 90_000 + 900_000 + 1_500), 15 * 100)
    assert durations == [3, 3, 0, 3, 0, 0, 3, 0, 0, 3, 0, 0, 0, 0, 0]
    assert [row[1:] for row in answers["tenant_costs"]] == [
        ("alice", "files", "read", 12, 12, 3 * (100 + 101 + 102 + 103), 84, 0, 0, 0),
        ("bob", "files", "read", 3, 3, 15, 0, 0, 0, 0),
    ]
    assert answers["tenant_events"] == [(since, "dev.fulcrum.budget.warned", 3)]
    latency = answers["tenant_latency"]
    assert [(server, tool, ended) for server, tool, ended, *_ in latency] == [("files", "read", 18)]
    p50, p95, p99 = latency[0][3:]
    assert 1_000 < p50 < 10_000
    assert 500_000 < p95 <= p99 <= 1_000_000


def test_minutes_add_up_to_their_hours(postgres_database: Database, archive: PostgresArchive) -> None:
    fill(archive)
    minutes, hours = (asked(postgres_database, "default", step)["tenant_calls"] for step in ("minute", "hour"))
    assert len({row[0] for row in minutes}) == 5
    assert sum(row[4] for row in minutes) == sum(row[4] for row in hours) == 5 * 8
    slowest = asked(postgres_database, "other", "hour")["tenant_latency"]
    assert [row[2:] for row in slowest] == [(5, 30_000_000, 30_000_000, 30_000_000)]


def test_nobody_reads_another_tenants_metrics(postgres_database: Database, archive: PostgresArchive) -> None:
    fill(archive)
    for tenant in ("third", "", None):
        assert asked(postgres_database, tenant, "minute") == {name: [] for name in FUNCTIONS}
    assert asked(postgres_database, "other", "hour", minutes=(0, 60))["tenant_calls"][0][4] == 3
    roles: tuple[Role, ...] = ("fulcrum_app", "fulcrum_gateway", "fulcrum_ingest")
    for role in roles:
        for table in (*TABLES, "calls_by_minute", "calls_by_hour", "costs_by_hour", "events_by_minute"):
            with pytest.raises(Unavailable), postgres_database.session(role, "default") as session:
                session.execute(f"SELECT * FROM metrics.{table}".encode())
    for role in roles[1:]:
        with pytest.raises(Unavailable), postgres_database.session(role, "default") as session:
            session.execute("SELECT * FROM metrics.tenant_calls('hour', now(), now())")
    with pytest.raises(Unavailable), postgres_database.session("fulcrum_app", "default") as session:
        session.execute("SELECT * FROM metrics.maintain()")


def test_a_step_that_is_none_is_refused(postgres_database: Database) -> None:
    with pytest.raises((Invalid, Unavailable)):
        asked(postgres_database, "default", "day")


def test_legs_of_one_call_are_one_call_and_cost_once(postgres_database: Database, archive: PostgresArchive) -> None:
    first, asking, again, end = (
        draft
        for _ in range(2)
        for draft in call_drafts(at=now_us() - DAY, charged={"calls": 1, "usd_micros": 9}, outcome="ok")
    )
    records, _ = Author().write([first, asking, again, end])
    call = records[0].subject
    records = [record._replace(subject=call) for record in records]
    records[1] = records[1]._replace(outcome="input_required", spend=None, cost={"usd_micros": 9})
    records[2:] = [record._replace(leg=1) for record in records[2:]]
    put(archive, (records, []))
    with postgres_database.session("fulcrum_app", "default") as session:
        bounds = "now() - interval '3 days', now()"
        calls = session.execute(f"SELECT calls, decisions, ended FROM metrics.tenant_calls('hour', {bounds})".encode())
        assert calls.fetchall() == [(1, 2, 1)]
        costs = session.execute(f"SELECT calls, usd_micros FROM metrics.tenant_costs('hour', {bounds})".encode())
        assert costs.fetchall() == [(1, 9)]


def test_clocks_that_are_wrong_lose_no_record_and_spoil_no_day(
    archive: PostgresArchive, root: psycopg.Connection[tuple[Any, ...]]
) -> None:
    author = Author()
    for at in (0, now_us() - 91 * DAY, now_us() - 40 * DAY, now_us() + 4_000 * DAY):
        put(archive, author.calls(1, at=at))
    assert root.execute("SELECT count(*) FROM fulcrum.audit_events").fetchone() == (8,)
    kept = root.execute(
        "SELECT now() - time > interval '39 days', count(*), bool_and(time <= now()) FROM metrics.tool_calls"
        " GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert kept == [(False, 2, True), (True, 2, True)]


def parts(root: psycopg.Connection[tuple[Any, ...]], table: str) -> set[str]:
    rows = root.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", [f"metrics.{table}"]
    )
    return {str(name).removeprefix(f"metrics.{table}_") for (name,) in rows}


def days(first: int, last: int) -> set[str]:
    today = dt.datetime.now(dt.UTC).date()
    return {(today + dt.timedelta(days=ahead)).strftime("%Y%m%d") for ahead in range(first, last + 1)}


def maintain(database: Database) -> tuple[int, int]:
    with database.session("fulcrum_ingest") as session:
        row = session.execute("SELECT made, dropped FROM metrics.maintain()").fetchone()
    assert row is not None
    return row[0], row[1]


def test_partitions_are_made_a_week_ahead_and_dropped_after_90_days(
    postgres_database: Database, archive: PostgresArchive, root: psycopg.Connection[tuple[Any, ...]]
) -> None:
    for table in TABLES:
        assert parts(root, table) == {"rest", *days(-1, 7)}
    today = dt.datetime.now(dt.UTC).date()
    for age in (89, 90, 91, 120):
        day = today - dt.timedelta(days=age)
        root.execute(
            f"CREATE TABLE metrics.events_{day:%Y%m%d} PARTITION OF metrics.events"
            f" FOR VALUES FROM ('{day} 00:00+00') TO ('{day + dt.timedelta(days=1)} 00:00+00')".encode()
        )
    root.execute(f"ALTER TABLE metrics.tool_calls DETACH PARTITION metrics.tool_calls_{today:%Y%m%d}".encode())
    root.execute(f"DROP TABLE metrics.tool_calls_{today:%Y%m%d}".encode())
    put(archive, Author().calls(2))
    assert root.execute("SELECT count(*) FROM metrics.tool_calls_rest").fetchone() == (4,)
    root.execute("INSERT INTO metrics.tool_calls_rest VALUES (now() - interval '91 days', 't', false, 'c', 0)")
    assert maintain(postgres_database) == (1, 2)
    assert maintain(postgres_database) == (0, 0)
    assert parts(root, "events") == {"rest", *days(-1, 7), *days(-90, -89)}
    assert root.execute("SELECT count(*) FROM metrics.tool_calls_rest").fetchone() == (0,)
    assert root.execute(f"SELECT count(*) FROM metrics.tool_calls_{today:%Y%m%d}".encode()).fetchone() == (4,)
    assert root.execute("SELECT count(*) FROM metrics.tool_calls").fetchone() == (4,)


def test_maintain_waits_for_nobody(postgres_database: Database, root: psycopg.Connection[tuple[Any, ...]]) -> None:
    today = dt.datetime.now(dt.UTC).date()
    root.execute(f"DROP TABLE metrics.events_{today:%Y%m%d}".encode())
    with root.transaction():
        root.execute("LOCK TABLE metrics.events_rest IN ACCESS EXCLUSIVE MODE")
        assert maintain(postgres_database) == (0, 0)
    assert maintain(postgres_database) == (1, 0)
