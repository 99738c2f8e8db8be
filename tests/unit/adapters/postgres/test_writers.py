from contextlib import closing

import pytest
from postgres_rig import superuser

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.writers import PostgresWriters

pytestmark = [pytest.mark.service, pytest.mark.parts]

PASS = (
    "UPDATE fulcrum.writers SET seen_at = seen_at - make_interval(secs => %(s)s);",
    """UPDATE fulcrum.beats SET last_at = last_at - make_interval(secs => %(s)s),
       silent_from = silent_from - make_interval(secs => %(s)s),
       silent_until = silent_until - make_interval(secs => %(s)s)""",
)


def elapse(config: PostgresConfig, seconds: int) -> None:
    with closing(superuser(config)) as connection:
        for statement in PASS:
            connection.execute(statement.encode(), {"s": seconds})


def test_the_clock_is_the_servers(postgres_database: Database) -> None:
    writers = PostgresWriters(postgres_database)
    for at in (0, 2**62):
        writers.beat("w1", at)
        assert list(writers.missing("run", at)) == ["writer w1 has not said where its chains stand"]


def test_after_an_outage_every_writer_that_lived_before_it_has_a_minute_to_speak(
    postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    """A database that was away, or suspended, hears of nobody: that must not make the living dead."""
    writers = PostgresWriters(postgres_database)
    writers.beat("dead", 0)
    for _ in range(5):
        elapse(postgres_config, 15)
        writers.beat("one", 0)
        writers.beat("two", 0)
    elapse(postgres_config, 600)
    waiting = list(writers.missing("run", 0))
    assert [said.split()[1] for said in waiting] == ["one", "two"]
    writers.declare("one", "run", {}, 0)
    elapse(postgres_config, 15)
    writers.beat("one", 0)
    assert [said.split()[1] for said in writers.missing("run", 0)] == ["two"]
    for _ in range(4):
        elapse(postgres_config, 15)
        writers.beat("one", 0)
    assert list(writers.missing("run", 0)) == []


def test_writers_that_are_long_gone_are_forgotten(postgres_config: PostgresConfig, postgres_database: Database) -> None:
    writers = PostgresWriters(postgres_database)
    writers.beat("old", 0)
    elapse(postgres_config, 8 * 86_400)
    writers.declare("new", "run", {"new.acme": 1}, 0)
    with closing(superuser(postgres_config)) as connection:
        assert connection.execute("SELECT writer FROM fulcrum.writers").fetchall() == [("new",)]


def test_the_gateways_role_writes_nothing_else(postgres_config: PostgresConfig) -> None:
    with closing(superuser(postgres_config)) as connection:
        rows = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ("
            "  SELECT oid FROM pg_namespace WHERE nspname IN ('fulcrum', 'metrics'))"
            " AND c.relkind IN ('r', 'p', 'v', 'm') AND ("
            "  has_table_privilege('fulcrum_gateway', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
            "  OR has_any_column_privilege('fulcrum_gateway', c.oid, 'INSERT, UPDATE')) ORDER BY 1"
        ).fetchall()
    assert [name for (name,) in rows] == [
        "fulcrum.beats",
        "fulcrum.declared_budgets",
        "fulcrum.installation",
        "fulcrum.writers",
    ]
