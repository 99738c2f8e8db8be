"""Real servers for the rig: Postgres, Valkey and NATS of the test rig, durable as production runs them."""

import contextlib
import os
import secrets
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.processes import Usage

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the servers are at home

from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import Server
from servers.valkey import ValkeyServer

__all__ = ["Parts", "load_of_machine", "opened", "shown", "usage_of"]

_POSTGRES = ("shared_buffers=256MB", "max_wal_size=2GB")


def usage_of(pid: int) -> Usage:
    """CPU seconds and resident memory of a process and its descendants; those that have ended are missing."""
    cpu, rss = 0.0, 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system
                rss += process.memory_info().rss
    return Usage(cpu, rss)


def load_of_machine() -> str:
    """How busy the machine is; other work on it makes every figure worse."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def shown(module: str, arguments: Sequence[str]) -> str:
    """The command of a run, without the folders and files that are of this machine."""
    kept: list[str] = []
    skipped = False
    for argument in arguments:
        if not skipped and argument not in {"--out", "--keep"} and not argument.startswith(("--out=", "--keep=")):
            kept.append(argument)
        skipped = argument in {"--out", "--keep"}
    return " ".join([f"python -m {module}", *kept])


class Parts:
    """All three, and what the processes of an installation are told about them."""

    def __init__(self, folder: Path) -> None:
        self.postgres = PostgresServer(folder / "postgres", durable=True, settings=_POSTGRES)
        self.nats = NatsServer(folder / "nats", max_file="4G")
        self.valkey = ValkeyServer(folder / "valkey")
        self.database = ""

    @property
    def servers(self) -> Mapping[str, Server]:
        return {"postgres": self.postgres, "nats": self.nats, "valkey": self.valkey}

    def environment(self) -> dict[str, str]:
        """For `fulcrum server` and `fulcrum processor`, with a new database of their own."""
        self.database = self.postgres.create_database()
        key = Ed25519PrivateKey.generate()
        return {
            "FULCRUM_POSTGRES_URL": self.postgres.database_url(self.database),
            "FULCRUM_REDIS_URL": self.valkey.url,
            "FULCRUM_NATS_URL": self.nats.url,
            "FULCRUM_STATE_KEYS": secrets.token_hex(32),
            "FULCRUM_AUDIT_MAC_KEY": secrets.token_hex(32),
            "FULCRUM_AUDIT_SIGNING_KEY": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }


@contextlib.contextmanager
def opened(folder: Path) -> Generator[Parts]:
    """Start all three; stop them at the end."""
    parts = Parts(folder)
    try:
        for server in parts.servers.values():
            server.start()
        yield parts
    finally:
        for server in parts.servers.values():
            server.resume()
            server.stop()
