"""The real servers as fixtures: one of each for all tests of a run, and one of its own for a test that harms it.

`postgres_url`, `valkey_url`, `redis_url` and `nats_url` are clean at every test. A test that kills, pauses or stops a
server takes `own_postgres`, `own_valkey` or `own_nats`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import Server
from servers.valkey import ValkeyServer

__all__ = [
    "nats_server",
    "nats_url",
    "own_nats",
    "own_postgres",
    "own_valkey",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
    "valkey_server",
    "valkey_url",
]


def _healed(server: Server) -> None:
    server.resume()
    server.start()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database that nobody has used."""
    _healed(postgres_server)
    name = postgres_server.create_database()
    yield postgres_server.database_url(name)
    _healed(postgres_server)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres")
    try:
        yield server.start()
    finally:
        server.close()


def _emptied(server: ValkeyServer) -> str:
    _healed(server)
    client = redis.Redis.from_url(server.url)
    try:
        client.flushall()
        client.function_flush()
        client.script_flush()
    finally:
        client.close()
    return server.url


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """A server without keys, functions and scripts."""
    return _emptied(valkey_server)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("redis"), program="redis") as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> str:
    """The same, of real Redis."""
    return _emptied(redis_server)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    """A server without streams, started anew: 30 ms."""
    return nats_server.restart(empty=True).url


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server
