import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from postgres_rig import LOGIN, database, login_user, superuser
from servers.postgres import PostgresServer
from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint, create_engine

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.upgrade import check, state, upgrade
from fulcrum_adapters.tables import METADATA
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

RACE = """
import sys
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import upgrade
sys.stdin.readline()
before, after = upgrade(PostgresConfig(sys.argv[1]))
print(before.found, after.found)
"""
LOCK = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'fulcrum')})".encode()


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[PostgresConfig]:
    """A database of a plain user, with nothing in it."""
    postgres_server.resume()
    postgres_server.start()
    login_user(postgres_server)
    name = database(postgres_server)
    yield PostgresConfig(postgres_server.database_url(name, user=LOGIN), timeout=2)
    postgres_server.resume()
    postgres_server.drop_database(name)


def test_an_empty_database_is_brought_up_to_date_once(empty: PostgresConfig) -> None:
    assert state(empty).found is None
    with pytest.raises(Unavailable, match=r"the schema is missing.*fulcrum db upgrade"):
        check(empty)
    before, after = upgrade(empty)
    assert before.found is None
    assert after.current
    assert state(empty) == after
    assert upgrade(empty) == (after, after)
    check(empty)


def test_of_four_that_start_at_once_one_does_the_work(empty: PostgresConfig) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, empty.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60) for racer in racers]
    assert [err for _, err in said] == [""] * 4
    befores = sorted(out.split()[0] for out, _ in said)
    assert befores.count("None") == 1
    assert state(empty).current


def test_where_the_steps_lead_is_the_one_definition(postgres_config: PostgresConfig) -> None:
    dialect = create_engine("postgresql+psycopg://").dialect
    with closing(superuser(postgres_config)) as connection:
        for table in METADATA.sorted_tables:
            rows = connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                (f"fulcrum.{table.name}",),
            ).fetchall()
            wanted = [
                (column.name, column.type.compile(dialect).lower(), not column.nullable) for column in table.columns
            ]
            assert [tuple(row) for row in rows] == wanted, table.name
            keys = connection.execute(
                "SELECT ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (n, place)"
                "  JOIN pg_attribute ON attrelid = conrelid AND attnum = n ORDER BY place)"
                " FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
                (f"fulcrum.{table.name}",),
            ).fetchall()
            unique = [
                [column.name for column in one.columns]
                for one in table.constraints
                if isinstance(one, PrimaryKeyConstraint | UniqueConstraint)
            ]
            assert sorted(row[0] for row in keys) == sorted(unique), table.name
            indexes = connection.execute(
                "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass AND NOT indisunique",
                (f"fulcrum.{table.name}",),
            ).fetchone()
            assert indexes == (len(table.indexes),), table.name


def test_a_newer_schema_is_refused(postgres_config: PostgresConfig) -> None:
    with closing(superuser(postgres_config)) as connection:
        connection.execute("UPDATE fulcrum.schema_revision SET version_num = '9999'")
    for ask in (upgrade, state, check):
        with pytest.raises(Unavailable, match="9999, written by a newer Fulcrum"):
            ask(postgres_config)


def test_a_step_that_fails_leaves_nothing(empty: PostgresConfig) -> None:
    with closing(superuser(empty)) as connection:
        connection.execute("CREATE SCHEMA fulcrum; CREATE TABLE fulcrum.writers (id int)")
        connection.execute(f"ALTER SCHEMA fulcrum OWNER TO {LOGIN}".encode())
        with pytest.raises(Unavailable, match="writers"):
            upgrade(empty)
        assert state(empty).found is None
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'fulcrum'::regnamespace"
        ).fetchall()
        assert left == [("writers",)]
        connection.execute("DROP TABLE fulcrum.writers")
    assert upgrade(empty)[1].current


def test_a_process_that_never_ends_its_upgrade_is_not_waited_for_without_end(empty: PostgresConfig) -> None:
    with closing(superuser(empty)) as connection, connection.transaction():
        connection.execute(LOCK)
        with pytest.raises(Unavailable, match="another process has been upgrading it for 1 s"):
            upgrade(empty, patience=1)
    assert upgrade(empty)[1].current


def test_a_suspended_server_is_given_up_in_time(own_postgres: PostgresServer) -> None:
    config = PostgresConfig(own_postgres.url, timeout=2)
    own_postgres.pause()
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="connection timeout"):
        upgrade(config)
    assert time.monotonic() - begun < 10
    own_postgres.resume()
    assert upgrade(config)[1].current


def test_a_server_suspended_within_an_upgrade_is_given_up(own_postgres: PostgresServer) -> None:
    config = PostgresConfig(own_postgres.url, timeout=2)
    with closing(psycopg.connect(own_postgres.url)) as connection, ThreadPoolExecutor(1) as thread:
        connection.execute(LOCK)
        waiting = thread.submit(upgrade, config, patience=2)
        until = time.monotonic() + 60
        while not connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_xact_lock%' AND pid <> pg_backend_pid()"
        ).fetchone():
            connection.execute("SELECT pg_sleep(0.02), pg_stat_clear_snapshot()")
            assert time.monotonic() < until, "nobody came to the lock"
            assert not waiting.done(), waiting.result()
        own_postgres.pause()
        fault = waiting.exception(60)
        own_postgres.resume()
    assert isinstance(fault, Unavailable)
    assert "no answer" in str(fault)
    assert upgrade(config)[1].current


def _refused(config: PostgresConfig) -> str:
    with pytest.raises(Unavailable) as told:
        upgrade(config)
    return str(told.value)


def test_a_user_without_rights_is_told_what_a_superuser_has_to_run(own_postgres: PostgresServer) -> None:
    """On a server where the roles are not there yet; what is said is run, until it is enough."""
    with closing(psycopg.connect(own_postgres.url, autocommit=True)) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("CREATE DATABASE ours OWNER plain")
        config = PostgresConfig(own_postgres.database_url("ours", user="plain"))
        said = _refused(config)
        assert 'user "plain" may not make the role fulcrum_app' in said
        commands = said.partition("as a superuser run: ")[2]
        for command in commands.split("; ")[:-1]:
            connection.execute(command.encode())
        said = _refused(config)
        assert 'user "plain" may not act as fulcrum_app' in said
        connection.execute("ALTER ROLE fulcrum_ingest BYPASSRLS")
        assert "role fulcrum_ingest sees past row-level security" in _refused(config)
        connection.execute("ALTER ROLE fulcrum_ingest NOBYPASSRLS")
        connection.execute(said.partition("as a superuser run: ")[2].encode())
        connection.execute("CREATE ROLE stranger LOGIN")
    assert upgrade(config)[1].current
    stranger = PostgresConfig(own_postgres.database_url("ours", user="stranger"))
    with (
        closing(Database(stranger)) as database,
        pytest.raises(Unavailable, match="grant it Fulcrum's roles"),
        database.session("fulcrum_app"),
    ):
        pass
    with pytest.raises(Unavailable, match="grant it Fulcrum's roles"):
        state(stranger)


def test_two_databases_of_one_server_share_the_roles(own_postgres: PostgresServer) -> None:
    with closing(psycopg.connect(own_postgres.url, autocommit=True)) as connection:
        for name in ("one", "two"):
            connection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE".encode())
            connection.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        one, two = (PostgresConfig(own_postgres.database_url(name, user=name)) for name in ("one", "two"))
        assert upgrade(one)[1].current
        assert "may not act as fulcrum_app" in _refused(two)  # whoever makes a role says who may act as it
        connection.execute("GRANT fulcrum_app, fulcrum_gateway, fulcrum_ingest TO two")
        assert upgrade(two)[1].current


def test_an_old_server_is_refused(empty: PostgresConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 150_009)
    assert "is too old; Fulcrum needs 16 or newer" in _refused(empty)
