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
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
import redis
import yaml
from composed import composed_environment, made_secrets
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import HOST, Server, free_port
from servers.valkey import Program, ValkeyServer
from truths import tables_of

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import check, upgrade

pytestmark = [pytest.mark.service, pytest.mark.parts]

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
SECRET = "a1b2c3d4e5f6"


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class InfraNats(NatsServer):
    """Started with infra/nats/nats.conf, but for its addresses and folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, token=SECRET)
        self.watch = free_port()

    def command(self) -> Sequence[str]:
        binary = super().command()[0]
        written = self.folder / "nats.conf"
        written.write_text(
            replaced(
                (INFRA / "nats" / "nats.conf").read_text(),
                {
                    "0.0.0.0:4222": f"{HOST}:{self.port}",
                    "127.0.0.1:8222": f"{HOST}:{self.watch}",
                    '"/data"': f'"{self.data}"',
                },
            )
        )
        return ["env", "NATS_NAME=one", f"NATS_TOKEN={SECRET}", binary, "-c", str(written)]


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


class InfraRedis(ValkeyServer):
    """Started as docker-compose.yml starts it, but for its port."""

    def command(self) -> Sequence[str]:
        binary = super().command()[0]
        written = self.folder / "redis.conf"
        written.write_text((INFRA / "redis" / "redis.conf").read_text())
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        shell, flag, script = compose["services"]["redis"]["command"]
        changes = {
            "redis-server": f"{binary} ",
            "/usr/local/etc/redis/redis.conf": f"{written} --port {self.port} --bind {HOST}",
        }
        script = replaced(script.replace("$$", "$").replace("/tmp/", f"{self.folder}/"), changes)
        return ["env", f"REDIS_PASSWORD={SECRET}", shell, flag, script]


@pytest.mark.parametrize("program", ["redis", "valkey"])
def test_redis_evicts_nothing_and_wants_the_password(program: Program, tmp_path: Path) -> None:
    with InfraRedis(tmp_path / "redis", program=program, password=SECRET) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "no"}
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def initialized(server: PostgresServer) -> str:
    """Run the init script as the image does; the URL of the application's user."""
    subprocess.run(
        ["sh", str(INFRA / "postgres" / "init" / "50-fulcrum.sh")],
        env={
            "PATH": f"{server.program('psql').parent}:{os.environ['PATH']}",
            "PGHOST": HOST,
            "PGPORT": str(server.port),
            "FULCRUM_DB_PASSWORD": 'it\'s; "odd"',
        },
        check=True,
        timeout=60,
    )
    return server.database_url("fulcrum_metrics", user="fulcrum")


def test_postgres_user_migrates_and_acts_as_every_role_without_being_superuser(own_postgres: PostgresServer) -> None:
    url = initialized(own_postgres)
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
    url = initialized(own_postgres)
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


def test_processor_is_ready_and_measured_with_the_environment_that_compose_gives_it(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    initialized(own_postgres)
    made_secrets(tmp_path)
    given = composed_environment(tmp_path / ".env", "event-processor")
    with InfraNats(tmp_path / "nats") as streams:
        moved = {
            "FULCRUM_POSTGRES_URL": ("@postgres:5432/", f"@{HOST}:{own_postgres.port}/"),
            "FULCRUM_NATS_URL": ("@nats:4222", f"@{HOST}:{streams.port}"),
            "FULCRUM_TELEMETRY_METRICS": ("0.0.0.0:9464", f"{HOST}:{free_port()}"),
        }
        for name, (old, new) in moved.items():
            given[name] = replaced(given[name], {old: new})
        given["FULCRUM_NATS_URL"] = streams.url
        with Processor(tmp_path / "processor", given) as process:
            assert process.healthy()
            rows = tables_of((ROOT / "docs" / "reference" / "metrics.md").read_text())["Event-processor"]
            promised = {(row["name"], row["type"]) for row in rows}
            until = time.monotonic() + 20
            while (served := families(given["FULCRUM_TELEMETRY_METRICS"])) != promised:
                assert served <= promised
                assert time.monotonic() < until, f"not served: {promised - served}"
                time.sleep(0.1)


def families(address: str) -> set[tuple[str, str]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return set(re.findall(r"^# TYPE (\w+) (\w+)$", answer.read().decode(), re.MULTILINE))


class Processor(Server):
    """`fulcrum processor` as its image starts it."""

    def __init__(self, folder: Path, given: dict[str, str]) -> None:
        super().__init__(folder)
        self._given = {**given, "FULCRUM_HTTP": f"{HOST}:{self.port}", "FULCRUM_DATA": str(self.data)}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        words = [f"{name}={value}" for name, value in self._given.items()]
        return ["env", *words, sys.executable, "-m", "fulcrum_mcp.cli", "processor"]

    def answers(self, seconds: float = 1.0) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=seconds) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def healthy(self) -> bool:
        script = str(INFRA / "docker" / "healthcheck.py")
        env = {"FULCRUM_HTTP": self._given["FULCRUM_HTTP"]}
        return subprocess.run([sys.executable, script], env=env, check=False, timeout=20).returncode == 0
