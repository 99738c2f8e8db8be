"""Real event-processors as processes of a test, killed and started at will; and a look at what they have left."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from servers.process import free_port

from fulcrum_adapters.jetstream import Seal
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.signing import GivenKeys, nats_key
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.trail import Fault, TrailVerifier

__all__ = ["MAC_KEY", "SEAL", "ProcessorProcess", "Processors", "new_signing_key", "within"]


MAC_KEY = secrets.token_hex(32)
"""What all gateways and processors of a test have."""
SEAL = Seal(nats_key(MAC_KEY, Path("nowhere")))


def new_signing_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def within(seconds: float, condition: Callable[[], bool], what: str = "it did not come to pass") -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


class ProcessorProcess:
    """One `fulcrum processor`; its output goes to a file."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = folder / "log"
        command = [sys.executable, "-m", "fulcrum_mcp.cli", "processor", "--http", f"127.0.0.1:{self.port}"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, "--data", str(folder / "data")],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**kept, **environ},
            )

    def get(self, path: str) -> tuple[int, Any]:
        """(status, document); (0, None) while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except OSError:
            return 0, None

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return self.get("/readyz")[0] == 200

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def end(self) -> int:
        """As an operator ends it: the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Processors:
    """Any number over one Postgres and one NATS, all with the same key."""

    def __init__(self, folder: Path, postgres: str, nats: str, **environ: str) -> None:
        self.folder = folder
        self.postgres = postgres
        self.key = new_signing_key()
        self.environ = {
            "FULCRUM_POSTGRES_URL": postgres,
            "FULCRUM_NATS_URL": nats,
            "FULCRUM_AUDIT_SIGNING_KEY": self.key,
            "FULCRUM_AUDIT_MAC_KEY": MAC_KEY,
            **environ,
        }
        self.running: list[ProcessorProcess] = []
        self._count = 0

    def start(self) -> ProcessorProcess:
        self._count += 1
        started = ProcessorProcess(self.folder / f"processor-{self._count}", self.environ)
        self.running.append(started)
        return started

    def close(self) -> None:
        for each in self.running:
            if each.process.poll() is None:
                each.kill()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("processor-*/log")))

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """A question to the database, as its owner."""
        with psycopg.connect(self.postgres) as connection:
            return connection.execute(statement.encode()).fetchall()

    def verdict(self) -> tuple[Fault | None, TrailVerifier]:
        """What `fulcrum audit verify` says of an export."""
        keys = GivenKeys(self.key, None, self.folder)
        database = Database(PostgresConfig(self.postgres))
        verifier = TrailVerifier(keys.key_id, keys.check)
        reader = PostgresAuditReader(database)
        try:
            for line in export_trail(reader, keys, None, "2026-08-01T12:00:00Z"):
                fault = verifier.feed(line)
                if fault is not None:
                    return fault, verifier
            return verifier.finish(), verifier
        finally:
            reader.close()
            database.close()
