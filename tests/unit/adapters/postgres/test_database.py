import threading
import time
from contextlib import closing

import psycopg
import pytest
from postgres_rig import superuser
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database, Session, connect
from fulcrum_mcp.errors import Conflict, Invalid, Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

ADD = "INSERT INTO fulcrum.kill_switches VALUES (%s, %s, 'agent', %s, '', '', 1)"
COUNT = "SELECT count(*) FROM fulcrum.kill_switches"


def one(session: Session, query: str) -> object:
    row = session.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def pid(database: Database) -> int:
    with database.session("fulcrum_gateway") as session:
        return session.info.backend_pid


def add(database: Database, tenant: str, name: str) -> None:
    with database.session("fulcrum_app", tenant) as session:
        session.execute(ADD, (f"{tenant}-{name}", tenant, name))


def test_a_session_sees_its_tenant_those_of_none_or_nothing(postgres_database: Database) -> None:
    for tenant in ("acme", "other", ""):
        add(postgres_database, tenant, "bot")
    views: list[tuple[str | None, list[str]]] = [("acme", ["acme"]), ("", [""]), (None, []), ("ACME", []), ("%", [])]
    for whose, seen in views:
        with postgres_database.session("fulcrum_app", whose) as session:
            rows = session.execute("SELECT tenant FROM fulcrum.kill_switches").fetchall()
            assert [row[0] for row in rows] == seen
    with postgres_database.session("fulcrum_gateway") as session:
        assert one(session, COUNT) == 3


def test_a_tenants_name_is_text_whatever_stands_in_it(postgres_database: Database) -> None:
    for name in ("'; RESET ROLE; --", "\\'", "%s", "{x}", "ü☠", "a" * 5000, '"'):
        with postgres_database.session("fulcrum_app", name) as session:
            assert one(session, "SELECT fulcrum.current_tenant()") == name
            assert one(session, "SELECT current_user::text") == "fulcrum_app"
    for name in ("a\0b", "\ud800"):
        with pytest.raises(Invalid), postgres_database.session("fulcrum_app", name):
            pass
    assert pid(postgres_database)


def test_nothing_of_a_session_outlives_it(postgres_config: PostgresConfig) -> None:
    with closing(Database(PostgresConfig(postgres_config.url, pool=1))) as database:
        for tenant in ("acme", ""):
            with database.session("fulcrum_app", tenant) as session:
                session.execute("SELECT set_config('search_path', 'public', true)")
                before = session.info.backend_pid
            with database.session("fulcrum_gateway") as session:
                assert session.info.backend_pid == before
                assert one(session, "SELECT fulcrum.current_tenant()") is None
                assert one(session, "SELECT current_user::text") == "fulcrum_gateway"
                assert one(session, "SELECT current_setting('search_path')") == "pg_catalog, pg_temp"


def test_what_raises_is_rolled_back(postgres_database: Database) -> None:
    with pytest.raises(ZeroDivisionError), postgres_database.session("fulcrum_app", "acme") as session:  # noqa: PT012 (the session raises)
        session.execute(ADD, ("a", "acme", "bot"))
        _ = 1 / 0
    with postgres_database.session("fulcrum_app", "acme") as session:
        assert one(session, COUNT) == 0


def test_a_failure_that_was_caught_inside_is_not_taken_for_success(postgres_database: Database) -> None:
    app = postgres_database.session("fulcrum_app", "acme")
    with pytest.raises(Unavailable, match="failed"), app as session:  # noqa: PT012 (the session raises)
        session.execute(ADD, ("a", "acme", "bot"))
        with pytest.raises(psycopg.Error):
            session.execute("SELECT 1 / 0")
    with postgres_database.session("fulcrum_app", "acme") as session:
        assert one(session, COUNT) == 0


def test_faults_have_our_names(postgres_database: Database) -> None:
    add(postgres_database, "acme", "bot")
    with pytest.raises(Conflict, match="exists already"):
        add(postgres_database, "acme", "bot")
    with pytest.raises(Invalid):
        add(postgres_database, "acme", "a\0b")
    with pytest.raises(Invalid):
        add(postgres_database, "acme", "\ud800")
    with pytest.raises(Unavailable, match="may not do that"), postgres_database.session("fulcrum_ingest") as session:
        session.execute(COUNT.encode())
    with pytest.raises(Unavailable, match="fulcrum db upgrade"), postgres_database.session("fulcrum_app") as session:
        session.execute("SELECT * FROM fulcrum.not_yet")


def test_a_snapshot_is_one_moment_and_read_only(postgres_database: Database) -> None:
    with postgres_database.session("fulcrum_gateway", snapshot=True) as session:
        assert one(session, COUNT) == 0
        add(postgres_database, "acme", "bot")
        assert one(session, COUNT) == 0
    with (
        pytest.raises(Unavailable),
        postgres_database.session("fulcrum_app", "acme", snapshot=True) as session,
    ):
        session.execute(ADD, ("b", "acme", "b"))


def test_connections_are_used_again_and_bounded(postgres_config: PostgresConfig) -> None:
    config = PostgresConfig(postgres_config.url, pool=2, timeout=1.0)
    with closing(Database(config)) as database:
        assert pid(database) == pid(database)
        with database.session("fulcrum_app") as first, database.session("fulcrum_app") as second:
            assert first.info.backend_pid != second.info.backend_pid
            with pytest.raises(Unavailable, match="all 2 connections") as full, database.session("fulcrum_app"):
                pass
            assert full.value.busy
        assert pid(database)


def test_many_threads_share_few_connections(postgres_config: PostgresConfig) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            add(database, f"t{number % 3}", f"{number}-{turn}")

    with closing(Database(PostgresConfig(postgres_config.url, pool=3))) as database:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with database.session("fulcrum_gateway") as session:
            assert one(session, COUNT) == 120
        with database.session("fulcrum_app", "t1") as session:
            assert one(session, COUNT) == 40


def test_a_connection_that_ended_while_it_was_idle_is_replaced_unseen(
    postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    with postgres_database.session("fulcrum_app"), postgres_database.session("fulcrum_app"):
        pass
    with closing(superuser(postgres_config)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for _ in range(3):
        assert pid(postgres_database)


def test_an_end_within_a_transaction_is_told_and_one_at_its_commit_is_doubtful(
    postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    with closing(superuser(postgres_config)) as connection:
        app = postgres_database.session("fulcrum_app", "acme")
        with pytest.raises(Unavailable) as told, app as session:  # noqa: PT012 (the session raises)
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (session.info.backend_pid,))
            session.execute("SELECT 1")
        assert not told.value.doubtful
        app = postgres_database.session("fulcrum_app", "acme")
        with pytest.raises(Unavailable) as told, app as session:  # noqa: PT012 (the session raises)
            session.execute(ADD, ("a", "acme", "bot"))
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (session.info.backend_pid,))
        assert told.value.doubtful
    with postgres_database.session("fulcrum_app", "acme") as session:
        assert one(session, COUNT) == 0


def test_a_statement_that_takes_too_long_is_given_up(postgres_config: PostgresConfig) -> None:
    with closing(Database(PostgresConfig(postgres_config.url, timeout=0.3))) as database:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"), database.session("fulcrum_app") as session:
            session.execute("SELECT pg_sleep(20)")
        assert time.monotonic() - begun < 10
        with database.session("fulcrum_app", timeout=20) as session:
            session.execute("SELECT pg_sleep(0.5)")
        with pytest.raises(Unavailable), database.session("fulcrum_app") as session:
            session.execute("SELECT pg_sleep(20)")


def test_after_close_it_says_so(postgres_config: PostgresConfig) -> None:
    database = Database(postgres_config)
    with database.session("fulcrum_app") as session:
        database.close()
        assert one(session, "SELECT 1") == 1
    database.close()
    with pytest.raises(Unavailable, match="closed"), database.session("fulcrum_app"):
        pass


def test_a_password_is_in_no_message(postgres_config: PostgresConfig) -> None:
    url = postgres_config.url.replace("@", ":c4nary-c4nary@").rpartition("/")[0] + "/c4nary-c4nary"
    with pytest.raises(Unavailable) as told:
        connect(PostgresConfig(url))
    assert "c4nary-c4nary" not in str(told.value).replace(PostgresConfig(url).place, "")
    assert told.value.__cause__ is None


def test_a_suspended_server_is_given_up_in_time_and_used_again_later(own_postgres: PostgresServer) -> None:
    with closing(psycopg.connect(own_postgres.url, autocommit=True)) as connection:
        connection.execute("CREATE ROLE fulcrum_app NOLOGIN")

    def ask() -> object:
        with database.session("fulcrum_app") as session:
            return one(session, "SELECT 1")

    def asked_again() -> object:
        """What it says, as soon as it is quick enough again."""
        until = time.monotonic() + 60
        while True:
            try:
                return ask()
            except Unavailable:
                assert time.monotonic() < until

    def suspend_and_ask() -> None:
        with database.session("fulcrum_app") as session:
            own_postgres.pause()
            session.execute("SELECT 1")

    with closing(Database(PostgresConfig(own_postgres.url, pool=2, timeout=0.5))) as database:
        assert asked_again() == 1
        for attempt, within in ((suspend_and_ask, 5.0), (ask, 10.0)):  # 0.5 s; a new connection is given 2 s
            begun = time.monotonic()
            with pytest.raises(Unavailable):
                attempt()
            assert time.monotonic() - begun < within
        own_postgres.resume()
        assert asked_again() == 1
        own_postgres.pause()
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within"):
            ask()
        assert time.monotonic() - begun < 5
        own_postgres.resume()
        assert asked_again() == 1


def test_a_server_that_comes_back_is_found(own_postgres: PostgresServer) -> None:
    with closing(psycopg.connect(own_postgres.url, autocommit=True)) as connection:
        connection.execute("CREATE ROLE fulcrum_app NOLOGIN")
    with closing(Database(PostgresConfig(own_postgres.url, timeout=2))) as database:
        for kill in (True, False):
            with database.session("fulcrum_app") as session:
                assert one(session, "SELECT 1") == 1
            own_postgres.kill() if kill else own_postgres.stop()
            with pytest.raises(Unavailable, match="Check that the server runs"), database.session("fulcrum_app"):
                pass
            own_postgres.start()
        with database.session("fulcrum_app") as session:
            assert one(session, "SELECT 1") == 1
