"""The servers of the tests themselves: they start, answer, keep their data over a kill, stop answering when paused."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import psutil
import psycopg
import pytest
import redis
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import Server
from servers.valkey import Program, Sentinel, ValkeyServer

pytestmark = [pytest.mark.service, pytest.mark.parts]

SHORT = 0.3


def made(kind: str, folder: Path) -> Server:
    match kind:
        case "postgres":
            return PostgresServer(folder)
        case "nats":
            return NatsServer(folder)
        case "redis":
            return ValkeyServer(folder, program="redis")
        case _:
            return ValkeyServer(folder)


async def _in_stream(url: str, act: Callable[[Any], Awaitable[int]]) -> int:
    connection = await nats.connect(url, connect_timeout=5)
    try:
        return await act(connection.jetstream())
    finally:
        await connection.close()


def put(server: Server) -> None:
    """One value, durable when this returns."""
    if isinstance(server, PostgresServer):
        with psycopg.connect(server.url) as connection:
            connection.execute("create table kept (value int)")
            connection.execute("insert into kept values (7)")
    elif isinstance(server, NatsServer):

        async def publish(stream: Any) -> int:
            await stream.add_stream(name="KEPT", subjects=["kept"])
            return int((await stream.publish("kept", b"7")).seq)

        assert asyncio.run(_in_stream(server.url, publish)) == 1
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 7)


def count(server: Server) -> int:
    """How often the value is there."""
    if isinstance(server, PostgresServer):
        with psycopg.connect(server.url) as connection:
            there = connection.execute("select to_regclass('kept') is not null").fetchone()
            if there != (True,):
                return 0
            row = connection.execute("select count(*) from kept where value = 7").fetchone()
            assert row is not None
            return int(row[0])
    if isinstance(server, NatsServer):

        async def held(stream: Any) -> int:
            return sum(each.state.messages for each in await stream.streams_info())

        return asyncio.run(_in_stream(server.url, held))
    with redis.Redis.from_url(server.url) as client:
        return int(client.get("kept") == b"7")


@pytest.mark.parametrize("kind", ["postgres", "valkey", "redis", "nats"])
def test_server_keeps_its_port_and_data_over_a_kill_and_loses_them_when_asked(kind: str, tmp_path: Path) -> None:
    with made(kind, tmp_path / "server") as server:
        assert server.answers(20)
        put(server)
        first, url = server.pid, server.url
        server.kill()
        assert not server.running
        assert not psutil.pid_exists(first)
        assert not server.answers()
        server.start()
        assert (server.url, server.pid == first) == (url, False)
        assert count(server) == 1
        assert count(server.restart()) == 1
        assert count(server.restart(empty=True)) == 0
        assert server.url == url
    assert not server.answers()


@pytest.mark.parametrize("kind", ["postgres", "valkey", "redis", "nats"])
def test_paused_server_does_not_answer_and_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    with made(kind, tmp_path / "server") as server:
        put(server)
        server.pause()
        started = time.monotonic()
        assert not server.answers(SHORT)
        assert time.monotonic() - started >= SHORT  # it was silent, it did not refuse
        server.resume()
        assert server.answers(20)
        assert count(server) == 1
        server.pause()
    assert not server.running  # a paused one is stopped as well


def test_paused_postgres_stops_the_sessions_it_has(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "server") as server, psycopg.connect(server.url, autocommit=True) as session:
        session.execute("select 1")
        server.pause()
        session.pgconn.send_query(b"select 2")
        time_out = time.monotonic() + SHORT
        while time.monotonic() < time_out:
            session.pgconn.consume_input()
            assert session.pgconn.is_busy()
        server.resume()
        answer = session.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"2"
        assert session.pgconn.get_result() is None


def test_server_ends_with_the_process_that_started_it_even_when_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from servers.valkey import ValkeyServer\n"
        "server = ValkeyServer(Path(sys.argv[1])).start(); print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "server")],
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        check=False,
        timeout=90,
    )
    assert ran.returncode == -9
    try:
        left = psutil.Process(int(ran.stdout))
    except psutil.NoSuchProcess:
        return
    gone, _ = psutil.wait_procs([left], timeout=60)
    assert gone


def test_server_that_cannot_start_says_what_its_log_says(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-setting"):
        ValkeyServer(tmp_path / "server", settings=[("no-such-setting", "1")]).start()


@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_sentinel_makes_the_replica_the_primary(program: Program, tmp_path: Path) -> None:
    with (
        ValkeyServer(tmp_path / "one", program=program, password="one-word") as one,
        ValkeyServer(tmp_path / "two", program=program, password="one-word", replica_of=one) as two,
        Sentinel(tmp_path / "sentinel", one) as sentinel,
        redis.Redis(port=sentinel.port) as asked,
        redis.Redis.from_url(two.url) as replica,
    ):
        told: Any = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.service)
        assert told[1] == str(one.port).encode()
        _until(lambda: asked.execute_command("SENTINEL", "REPLICAS", sentinel.service), "the replica is known")
        _until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica follows")
        one.kill()
        _until(lambda: _leads(replica), "the replica was made the primary")


def _leads(server: "redis.Redis") -> bool:
    try:
        return bool(server.info("replication")["role"] == "master")
    except redis.ConnectionError:  # a sentinel ends every connection to what it has made the primary
        return False


def _until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


def test_shared_servers_are_clean_for_each_test(
    postgres_url: str, valkey_url: str, redis_url: str, nats_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
        assert connection.execute("show max_connections").fetchone() == ("200",)
    for url in (valkey_url, redis_url):
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("left", 1)

    async def leave(stream: Any) -> int:
        assert await stream.streams_info() == []
        await stream.add_stream(name="LEFT", subjects=["left"])
        return 0

    asyncio.run(_in_stream(nats_url, leave))


test_shared_servers_are_clean_for_the_next_test_too = test_shared_servers_are_clean_for_each_test
