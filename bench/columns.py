"""The columns: how each gateway is started in front of the upstream, and how it is called."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from bench.load import Target
from bench.processes import Tree, free_port, python, started, until_listening

__all__ = ["COLUMNS", "Column", "Missing", "Running", "fastmcp_python", "fulcrum"]

_HERE = Path(__file__).parent
_CACHE = _HERE.parent / ".cache"
_FASTMCP = "fastmcp==4.1.6"


class Missing(Exception):
    """This column cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens. `tree` is None where there is no gateway."""

    target: Target
    tree: Tree | None
    log: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One gateway: `start(upstream, folder, cores)` is a context that yields it running."""

    name: str
    what: str
    start: Callable[[str, Path, set[int]], contextlib.AbstractContextManager[Running]]


@contextlib.contextmanager
def _gateway(
    command: list[str],
    port: int,
    folder: Path,
    on: set[int],
    *,
    path: str = "/mcp",
    headers: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Generator[Running]:
    log = folder / "log.txt"
    with started(command, log, on, environment) as tree:
        try:
            until_listening(port, tree, 60)
        except RuntimeError as fault:
            raise Missing(f"{fault}; its last words: {log.read_text(errors='replace')[-800:]}") from fault
        yield Running(Target(f"http://127.0.0.1:{port}{path}", dict(headers or {})), tree, log)


@contextlib.contextmanager
def _direct(upstream: str, _folder: Path, _on: set[int]) -> Generator[Running]:
    yield Running(Target(upstream), None)


def _bare(upstream: str, folder: Path, on: set[int]) -> contextlib.AbstractContextManager[Running]:
    port = free_port()
    return _gateway(python("-m", "bench.bare", str(port), upstream), port, folder, on)


def _nginx(upstream: str, folder: Path, on: set[int]) -> contextlib.AbstractContextManager[Running]:
    # A user's PATH often lacks the folder that Debian puts it in.
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise Missing("nginx is not installed")
    port = free_port()
    address = upstream.removeprefix("http://").partition("/")[0]
    configuration = folder / "nginx.conf"
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    configuration.write_text(
        f"{user}worker_processes 1;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{\naccess_log off;\nkeepalive_requests 100000000;\n{places}"
        f"upstream echo {{ server {address}; keepalive 64; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://echo; proxy_http_version 1.1; "
        'proxy_set_header Connection ""; } }\n}\n'
    )
    return _gateway([binary, "-p", str(folder), "-c", str(configuration)], port, folder, on)


def fastmcp_python() -> Path:
    """The interpreter of the environment that holds fastmcp alone; made on first use."""
    environment = _CACHE / "fastmcp"
    interpreter = environment / "bin" / "python"
    ready = environment / ".ready"
    if ready.exists() and ready.read_text() == _FASTMCP:
        return interpreter
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise Missing("uv is not here; `make bench` brings it")
    print(f"fetching {_FASTMCP} into {environment.relative_to(_HERE.parent)}", file=sys.stderr)
    overrides = _CACHE / "fastmcp-overrides.txt"
    _CACHE.mkdir(exist_ok=True)
    overrides.write_text("certifi\n")  # its floor for the certificate bundle may be newer than a mirror's newest
    for arguments in (
        ["venv", "--quiet", "--clear", "--python", sys.executable, str(environment)],
        ["pip", "install", "--quiet", "--python", str(interpreter), "--override", str(overrides), _FASTMCP],
    ):
        done = subprocess.run([uv, *arguments], stderr=subprocess.PIPE, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise Missing(f"uv {arguments[0]} failed: {done.stderr[-600:]}")
    ready.write_text(_FASTMCP)
    return interpreter


def _fastmcp(upstream: str, folder: Path, on: set[int]) -> contextlib.AbstractContextManager[Running]:
    port = free_port()
    command = [str(fastmcp_python()), str(_HERE / "fastmcp_proxy.py"), str(port), upstream]
    return _gateway(command, port, folder, on)


_CONFIGURATION = """\
[[server]]
name = "echo"
url = "{upstream}"

[[budget]]
name = "calls of an agent"
scope = "agent"
calls = 1000000000
period = "day"

[[budget]]
name = "money for a tool"
scope = "tool"
usd = 1000000
period = "month"
"""


def fulcrum(
    upstream: str,
    folder: Path,
    on: set[int],
    *,
    program: Sequence[str] = (),
    verb: str = "up",
    environment: Mapping[str, str] | None = None,
) -> contextlib.AbstractContextManager[Running]:
    """Fulcrum as it is measured; `program` stands in for the `fulcrum` command (a profiler's)."""
    port, grpc = free_port(), free_port()
    configuration = folder / "fulcrum.toml"
    configuration.write_text(_CONFIGURATION.format(upstream=upstream))
    told = dict(environment or {})
    key = told.setdefault("FULCRUM_ADMIN_KEY", f"flcrm_sk_bench_{secrets.token_hex(24)}")
    command = [
        *(program or python("-m", "fulcrum_mcp.cli")),
        verb,
        *("--config", str(configuration), "--policies", str(_HERE / "policies"), "--data", str(folder / "data")),
        *("--http", f"127.0.0.1:{port}", "--grpc", f"127.0.0.1:{grpc}"),
    ]
    return _gateway(
        command,
        port,
        folder,
        on,
        path="/servers/echo/mcp",
        headers={"Authorization": f"Bearer {key}"},
        environment=told,
    )


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("direct", "no gateway", _direct),
        Column("bare", "raw ASGI on uvicorn, own httptools pool, no parse", _bare),
        Column("nginx", "one worker, keep-alive upstream", _nginx),
        Column("fastmcp", f"{_FASTMCP} proxy, one shared client (its best)", _fastmcp),
        Column("fulcrum", "key, 3 policies, 2 budgets, durable audit before forward and after, one worker", fulcrum),
    )
}
