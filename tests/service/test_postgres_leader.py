"""Leadership by a session of Postgres: one at a time, lost with its session, never with another's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_rig import superuser
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.leader import PostgresLeadership
from fulcrum_mcp.errors import Unavailable

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.service, pytest.mark.parts]

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("archive_worker.py")


@pytest.fixture
def pair(postgres_config: PostgresConfig) -> Iterator[tuple[PostgresLeadership, PostgresLeadership]]:
    pair = PostgresLeadership(postgres_config), PostgresLeadership(postgres_config)
    yield pair
    for each in pair:
        each.release()


def end_sessions(config: PostgresConfig) -> int:
    connection = superuser(config)
    try:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'fulcrum-leader'"
        ).fetchall()
    finally:
        connection.close()
    return len(rows)


def within(seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_leads_until_it_lets_go(pair: tuple[PostgresLeadership, PostgresLeadership]) -> None:
    one, two = pair
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    two.release()
    assert not two.acquire()
    one.release()
    one.release()
    assert two.acquire()
    assert not one.acquire()


def test_a_leader_whose_session_ended_knows_it(
    pair: tuple[PostgresLeadership, PostgresLeadership], postgres_config: PostgresConfig
) -> None:
    one, two = pair
    assert one.acquire()
    assert end_sessions(postgres_config) == 1
    assert two.acquire()
    assert not one.acquire()
    assert end_sessions(postgres_config) == 1
    assert two.acquire()


def test_databases_have_leaders_of_their_own(
    pair: tuple[PostgresLeadership, PostgresLeadership], postgres_server: PostgresServer
) -> None:
    elsewhere = PostgresLeadership(PostgresConfig(postgres_server.url))
    assert pair[0].acquire()
    assert elsewhere.acquire()
    elsewhere.release()


def test_a_killed_leader_leads_no_more(
    pair: tuple[PostgresLeadership, PostgresLeadership], postgres_config: PostgresConfig
) -> None:
    path = os.pathsep.join(str(ROOT / part) for part in ("", "adapters", "tests"))
    process = subprocess.Popen(
        [sys.executable, str(WORKER), postgres_config.url, "0", "0", "0", "lead"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not pair[0].acquire()
        process.send_signal(signal.SIGKILL)
        within(10, pair[0].acquire)
    finally:
        process.kill()
        process.communicate()


def test_a_leader_that_is_stopped_or_hangs_leads_no_more(postgres_config: PostgresConfig) -> None:
    one, two = PostgresLeadership(postgres_config, 1.0), PostgresLeadership(postgres_config)
    assert one.acquire()
    assert not two.acquire()
    within(10, two.acquire)
    assert not one.acquire()
    two.release()
    assert one.acquire()
    one.release()


def test_the_server_is_told_to_notice_that_nobody_is_there(
    pair: tuple[PostgresLeadership, PostgresLeadership],
) -> None:
    assert pair[0].acquire()
    held = pair[0]._held
    assert held is not None
    shown = [held.execute(f"SHOW {name}".encode()).fetchone() for name in ("tcp_keepalives_idle", "tcp_user_timeout")]
    assert shown == [("5",), ("15000",)]


def test_a_silent_server_has_no_leader_and_says_so_in_time(own_postgres: PostgresServer) -> None:
    config = PostgresConfig(own_postgres.url, timeout=1.0)
    one, two = PostgresLeadership(config), PostgresLeadership(config)
    assert one.acquire()
    own_postgres.pause()
    for each in (one, two):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            each.acquire()
        assert time.monotonic() - began < 6
    own_postgres.resume()

    def led() -> bool:
        try:
            return two.acquire()
        except Unavailable:
            return False

    within(20, led)
    assert not one.acquire()
    two.release()


def test_a_server_that_is_gone_is_unavailable_and_a_new_one_has_a_leader(own_postgres: PostgresServer) -> None:
    config = PostgresConfig(own_postgres.url, timeout=1.0)
    one = PostgresLeadership(config)
    assert one.acquire()
    own_postgres.kill()
    with pytest.raises(Unavailable):
        one.acquire()
    own_postgres.start()
    assert one.acquire()
    one.release()
    with psycopg.connect(own_postgres.url) as connection:
        within(5, lambda: connection.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'").fetchall() == [])
