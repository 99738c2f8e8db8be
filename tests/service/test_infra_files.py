"""What infra/ gives to Postgres, Redis and NATS does what it says, on the real servers."""

import asyncio
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
import redis
from composed import ROOT
from infra_servers import INFRA, InfraNats, InfraRedis, prepared
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import HOST
from servers.valkey import Program

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import check, upgrade

pytestmark = [pytest.mark.service, pytest.mark.parts]


def test_nats_syncs_always_has_a_health_check_and_wants_the_token(tmp_path: Path) -> None:
    with InfraNats(tmp_path / "nats") as server:
        for path in ("healthz", "jsz?config=true"):
            with urllib.request.urlopen(f"http://{HOST}:{server.watch}/{path}", timeout=5) as answer:
                said: dict[str, Any] = json.load(answer)
            assert said["status"] == "ok" if path == "healthz" else said["config"]["sync_always"] is True

        async def limits() -> int:
            connection = await nats.connect(server.url)
            try:
                return int((await connection.jetstream().account_info()).limits.max_storage)
            finally:
                await connection.close()

        assert asyncio.run(limits()) != 0
        with socket.create_connection((HOST, server.port), timeout=5) as stranger:
            stranger.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
            heard = b""
            while b"-ERR" not in heard:
                more = stranger.recv(4096)
                assert more, heard
                heard += more
            assert b"Authorization Violation" in heard


def test_nats_without_a_token_does_not_start(tmp_path: Path) -> None:
    binary = NatsServer(tmp_path / "none").command()[0]
    ran = subprocess.run(
        [binary, "-t", "-c", str(INFRA / "nats" / "nats.conf")],
        env={"NATS_NAME": "one"},
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert ran.returncode != 0
    assert b"NATS_TOKEN" in ran.stderr


@pytest.mark.parametrize("program", ["redis", "valkey"])
def test_redis_evicts_nothing_and_wants_the_password(program: Program, tmp_path: Path) -> None:
    with InfraRedis(tmp_path / "redis", program=program) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "no"}
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_postgres_user_migrates_and_acts_as_every_role_without_being_superuser(own_postgres: PostgresServer) -> None:
    url = prepared(own_postgres)
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, False, False, True)
    _, after = upgrade(PostgresConfig(url))
    assert after.current
    with psycopg.connect(url) as connection:
        for role in ("fulcrum_app", "fulcrum_gateway", "fulcrum_ingest"):
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            assert connection.execute("SELECT current_user").fetchone() == (role,)
    with psycopg.connect(own_postgres.url) as connection:
        hashed = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'fulcrum'").fetchone()
        assert hashed is not None
        assert hashed[0].startswith("SCRAM-SHA-256$")


def test_database_user_is_replaced_as_the_page_of_credentials_says(own_postgres: PostgresServer) -> None:
    url = prepared(own_postgres)
    upgrade(PostgresConfig(url))
    page = (ROOT / "docs" / "CREDENTIALS.md").read_text()
    commands = re.findall(r"\(`(CREATE ROLE fulcrum2 [^`]+)`\)", page)
    assert len(commands) == 1
    with psycopg.connect(url, autocommit=True) as connection:
        for command in commands[0].split("; "):
            connection.execute(command.encode())
    second = own_postgres.database_url("fulcrum_metrics", user="fulcrum2")
    check(PostgresConfig(second))
    with psycopg.connect(second) as connection:
        connection.execute("SET LOCAL ROLE fulcrum_gateway")
        assert connection.execute("SELECT count(*) FROM fulcrum.api_keys").fetchone() == (0,)


def test_postgres_script_without_a_password_says_which_is_missing() -> None:
    ran = subprocess.run(
        ["sh", str(INFRA / "postgres" / "init" / "50-fulcrum.sh")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert ran.returncode != 0
    assert b"FULCRUM_DB_PASSWORD is not set" in ran.stderr


class Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.mark.parametrize("address", ["0.0.0.0:{port}", "[::]:{port}", "{port}"])
def test_container_is_healthy_when_healthz_says_200_and_only_then(address: str) -> None:
    def asked() -> int:
        script = INFRA / "docker" / "healthcheck.py"
        env = {"FULCRUM_HTTP": address.format(port=port)}
        return subprocess.run([sys.executable, str(script)], env=env, check=False, timeout=20).returncode

    with http.server.HTTPServer((HOST, 0), Health) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert asked() == 0
            Health.status = 503
            assert asked() == 1
        finally:
            Health.status = 200
            server.shutdown()
            thread.join()
    assert asked() == 1
