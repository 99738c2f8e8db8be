"""The demo's gateway: `fulcrum up` in a process of its own, and the other commands against its data folder."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from importlib.resources import as_file, files
from pathlib import Path

from fulcrum_mcp.demo import servers
from fulcrum_mcp.errors import Unavailable

__all__ = ["Gateway", "running"]

_READY_SECONDS = 30
_STOP_SECONDS = 10

_CONFIGURATION = """\
[[server]]
name = "time"
command = {time}

[[server]]
name = "git"
command = {git}

[[budget]]
name = "conversions"
scope = "tool:time__convert_time"
calls = 2
period = "day"
action = "hard"
"""


class Gateway:
    """A running gateway: where it listens, where its data lies, and its own commands."""

    def __init__(self, address: str, data: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.address = address
        self.data = data
        self._log = log
        self._environment = environment

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fulcrum ARGUMENTS` as a person would."""
        return subprocess.run(
            [*_fulcrum(), *arguments],
            env={**self._environment, "NO_COLOR": "1", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def last_words(self) -> str:
        """The end of what it has printed."""
        return _last_words(self._log)

    def key(self, agent: str, role: str) -> str:
        """A new key for an agent that may call tools and nothing else."""
        done = self.command(
            *("keys", "create", agent, "--agent", agent, "--role", role, "--scope", "tool:call"),
            *("--data", str(self.data)),
        )
        if done.returncode != 0:
            raise Unavailable(f"`fulcrum keys create` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()


@contextlib.contextmanager
def running(folder: Path, repository: Path) -> Generator[Gateway]:
    """Start the gateway in `folder`; whatever happens inside the block, it and its servers are gone afterwards."""
    configuration = folder / "fulcrum.toml"
    configuration.write_text(
        _CONFIGURATION.format(
            time=json.dumps(servers.command("time")),
            git=json.dumps(servers.command("git", "--repository", str(repository))),
        )
    )
    data, log = folder / "data", folder / "gateway.log"
    http, grpc = _free_port(), _free_port()
    environment = {**_without_ours(os.environ), **servers.environment()}
    environment["FULCRUM_ADMIN_KEY"] = f"flcrm_sk_demo_{secrets.token_hex(24)}"
    with as_file(files("fulcrum_mcp.demo") / "policies") as policies, log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(*_fulcrum(), "up", "--config", str(configuration), "--policies", str(policies)),
                *("--data", str(data), "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}"),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for us alone; we stop it
        )
        try:
            address = f"http://127.0.0.1:{http}"
            _until_ready(process, address, log)
            yield Gateway(address, data, log, environment)
        finally:
            _stop(process)


def _fulcrum() -> list[str]:
    return [sys.executable, "-m", "fulcrum_mcp.cli"]


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """A person's own FULCRUM_* settings are for their gateway, not for the demo's."""
    return {name: value for name, value in environment.items() if not name.startswith("FULCRUM_")}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), opener.open(f"{address}/readyz", timeout=2) as answer:
            if answer.status == 200:  # noqa: PLR2004 - OK
                return
        time.sleep(0.02)
    what = "ended" if process.poll() is not None else f"is not ready after {_READY_SECONDS} s"
    raise Unavailable(f"the demo's gateway {what}; its last words:\n{_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-1500:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, then kill it and whatever it started; its session is its own, so that nothing else is meant."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
        process.wait()
