"""The schema on a real TimescaleDB: what is made there, and that it answers as plain PostgreSQL does."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from metrics_rig import asked, fill
from servers.timescale import TimescaleServer

from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.upgrade import state, upgrade

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(420)]

TABLES = {"tool_calls", "cost_events", "events"}
VIEWS = {f"{name}_by_{step}" for name in ("calls", "costs", "events") for step in ("minute", "hour")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimescaleServer]:
    with TimescaleServer(tmp_path_factory.mktemp("timescale")) as server:
        yield server


@pytest.fixture(scope="module")
def config(server: TimescaleServer) -> PostgresConfig:
    """All migrations have run, and the metrics are filled."""
    config = PostgresConfig(server.url, pool=1, timeout=30.0)
    upgrade(config)
    database = Database(config)
    fill(PostgresArchive(database))
    database.close()
    return config


def rows(config: PostgresConfig, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(config.url, autocommit=True, prepare_threshold=None) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_all_migrations_have_run(config: PostgresConfig) -> None:
    found = state(config)
    assert found.current
    assert rows(config, "SELECT extname FROM pg_extension WHERE extname = 'timescaledb'") == [("timescaledb",)]


def test_tables_are_hypertables_by_day(config: PostgresConfig) -> None:
    found = rows(
        config,
        "SELECT hypertable_name, time_interval::text, compression_enabled FROM timescaledb_information.dimensions"
        " JOIN timescaledb_information.hypertables USING (hypertable_schema, hypertable_name)"
        " WHERE hypertable_schema = 'metrics'",
    )
    assert {(name, day, on) for name, day, on in found} == {(table, "1 day", True) for table in TABLES}


def test_sums_are_continuous_aggregates_that_also_show_what_is_new(config: PostgresConfig) -> None:
    found = rows(
        config,
        "SELECT view_name, materialized_only FROM timescaledb_information.continuous_aggregates"
        " WHERE view_schema = 'metrics'",
    )
    assert set(found) == {(view, False) for view in VIEWS}


def test_policies_refresh_compress_and_drop_after_90_days(config: PostgresConfig) -> None:
    jobs = rows(
        config,
        "SELECT proc_name, hypertable_name, config FROM timescaledb_information.jobs"
        " WHERE hypertable_schema = 'metrics'",
    )
    found = {(job, name): settings for job, name, settings in jobs}
    assert {name for job, name in found if job == "policy_refresh_continuous_aggregate"} == VIEWS
    assert {name for job, name in found if job == "policy_compression"} == TABLES
    kept = {name: settings["drop_after"] for (job, name), settings in found.items() if job == "policy_retention"}
    assert kept == dict.fromkeys(TABLES | VIEWS, "90 days")


def test_the_policies_can_run(config: PostgresConfig) -> None:
    jobs = rows(config, "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_schema = 'metrics'")
    for (job,) in jobs:
        rows(config, f"CALL public.run_job({job})")


def test_it_answers_as_plain_postgres_does_before_and_after_a_refresh(
    config: PostgresConfig, postgres_database: Database
) -> None:
    fill(PostgresArchive(postgres_database))
    plain = {
        (tenant, step, minutes): asked(postgres_database, tenant, step, minutes=minutes)
        for tenant in ("default", "other", "nobody", "", None)
        for step in ("minute", "hour")
        for minutes in ((0, 120), (1, 60))
    }
    for refreshed in (False, True):
        if refreshed:
            for view in sorted(VIEWS):
                rows(config, f"CALL public.refresh_continuous_aggregate('metrics.{view}', NULL, NULL)")
        database = Database(config)
        for (tenant, step, minutes), wanted in plain.items():
            assert asked(database, tenant, step, minutes=minutes) == wanted
        database.close()


def test_what_comes_late_is_in_the_sums_after_the_next_refresh(config: PostgresConfig) -> None:
    database = Database(config)
    before = asked(database, "late", "hour")["tenant_calls"]
    database.close()
    assert before == []
    rows(
        config,
        "INSERT INTO metrics.tool_calls (time, tenant, finished, call, leg) VALUES"
        " (date_trunc('hour', now()) - interval '1 hour 50 minutes', 'late', false, 'c', 0)",
    )
    rows(config, "CALL public.refresh_continuous_aggregate('metrics.calls_by_hour', NULL, NULL)")
    assert rows(config, "SELECT calls FROM metrics.calls_by_hour WHERE tenant = 'late'") == [(1,)]


def test_maintain_has_nothing_to_do(config: PostgresConfig) -> None:
    database = Database(config)
    with database.session("fulcrum_ingest") as connection:
        assert connection.execute("SELECT made, dropped FROM metrics.maintain()").fetchall() == [(0, 0)]
    database.close()
