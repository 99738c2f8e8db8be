"""NATS, Redis and Postgres as the files of infra/ and docker-compose.yml make them."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml
from composed import ROOT
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import HOST, free_port
from servers.valkey import Program, ValkeyServer

__all__ = ["INFRA", "SECRET", "InfraNats", "InfraRedis", "prepared", "replaced"]

INFRA: Final = ROOT / "infra"
SECRET: Final = "a1b2c3d4e5f6"


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


class InfraRedis(ValkeyServer):
    """Started as docker-compose.yml starts it, but for its port."""

    def __init__(self, folder: Path, *, program: Program = "redis") -> None:
        super().__init__(folder, program=program, password=SECRET)

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


def prepared(server: PostgresServer) -> str:
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
