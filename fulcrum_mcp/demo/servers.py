"""The two servers behind the demo's gateway: from PyPI, run by uv, at pinned versions; and the repository they read."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fulcrum_mcp.demo.story import LEAKED
from fulcrum_mcp.errors import Unavailable

__all__ = ["command", "environment", "fetch", "repository"]

_VERSION = "2026.10.19"
_SDK = "mcp==2.3.0"


def environment() -> Mapping[str, str]:
    """What uv is told: never to bring a Python of its own."""
    return {"UV_PYTHON_DOWNLOADS": "never"}


def command(server: str, *arguments: str) -> list[str]:
    """The command that runs `mcp-server-<server>` once it has been fetched."""
    return [*_uv(server, offline=True), f"mcp-server-{server}", *arguments]


def _uv(server: str, *, offline: bool) -> list[str]:
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    uv = shutil.which("uv", path=beside)
    if uv is None:
        raise Unavailable("uv is not here, and the demo runs its MCP servers with it: `pip install uv`, or `make demo`")
    quietly = ("--offline", "--quiet") if offline else ()
    packages = ("--from", f"mcp-server-{server}=={_VERSION}", "--with", _SDK)
    return [uv, "tool", "run", *quietly, "--python", sys.executable, *packages]


def fetch() -> None:
    """Bring both servers into uv's cache; uv's own progress bars go to the terminal when there is anything to fetch."""
    for server in ("time", "git"):
        if _run([*_uv(server, offline=True), "python", "-V"], quiet=True).returncode == 0:
            continue
        sys.stderr.write(f"fetching mcp-server-{server} {_VERSION} from PyPI\n")
        done = _run([*_uv(server, offline=False), "python", "-V"], quiet=False)
        if done.returncode != 0:
            raise Unavailable(
                f"mcp-server-{server} {_VERSION} could not be fetched (uv ended with {done.returncode}; its words are "
                "above); the demo needs PyPI once"
            )


def _run(arguments: list[str], *, quiet: bool) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        arguments,
        env={**os.environ, **environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        timeout=600,
        check=False,
    )


def repository(folder: Path) -> Path:
    """A git repository whose history holds a token and an address that somebody should not have written there."""
    git = shutil.which("git")
    if git is None:
        raise Unavailable("git is not on the PATH, and the demo puts a gateway in front of a git server: install git")
    folder.mkdir(parents=True, exist_ok=True)
    token, address = LEAKED
    person = {"NAME": "Ada", "EMAIL": address}
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
    isolated = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    messages = ("First draft", f"Use token {token} for the nightly job", f"Ask {address} before releasing")
    for arguments in (
        ("init", "--quiet"),
        *(("commit", "--quiet", "--allow-empty", "--message", message) for message in messages),
    ):
        done = subprocess.run(
            [git, "-C", str(folder), *arguments],
            env={**os.environ, **who, **isolated},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
    return folder
