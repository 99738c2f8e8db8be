"""What `make interop` needs and does not have: fetched once from PyPI and npm into `.cache/interop`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.columns import Missing, fastmcp_python
from bench.conformance import node

__all__ = ["Tools", "fetch"]

_CACHE = Path(__file__).parents[2] / ".cache" / "interop"
_NPM = (
    "@modelcontextprotocol/inspector@2.12.0",
    "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)
_ENVIRONMENTS = {
    "sdk1": ("mcp==1.30.0",),
    "servers": ("mcp-server-time", "mcp-server-git"),
}


class Tools:
    """Where everything is."""

    def __init__(self) -> None:
        self.node = node()
        self.modules = _CACHE / "node" / "node_modules"
        scope = self.modules / "@modelcontextprotocol"
        self.inspector = scope / "inspector" / "clients" / "launcher" / "build" / "index.js"
        self.everything = scope / "server-everything" / "dist" / "index.js"
        self.filesystem = scope / "server-filesystem" / "dist" / "index.js"
        self.sdk1 = _CACHE / "sdk1" / "bin" / "python"
        self.servers = _CACHE / "servers" / "bin"
        self.fastmcp = fastmcp_python()
        # A module finds its packages from where it lies, so the TypeScript client lies beside them.
        self.typescript = _CACHE / "node" / "typescript.mjs"


def _run(command: list[str], what: str, **environment: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode != 0:
        raise Missing(f"{what} could not be fetched (it needs the network once): {done.stderr[-600:]}")


def _fresh(folder: Path, wanted: str) -> bool:
    ready = folder / ".ready"
    return ready.exists() and ready.read_text() == wanted


def fetch() -> Tools:
    """Bring everything. Raises `Missing` with what could not be fetched and why."""
    found, wanted = node(), "\n".join(_NPM)
    folder = _CACHE / "node"
    if not _fresh(folder, wanted):
        print(f"fetching {', '.join(_NPM)}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        npm = found.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = f"{found.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
        _run([str(found), str(npm), "install", *options, *_NPM], "npm packages", PATH=path)
        (folder / ".ready").write_text(wanted)
    shutil.copy(Path(__file__).parent / "programs" / "typescript.mjs", folder / "typescript.mjs")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    for name, packages in _ENVIRONMENTS.items():
        folder, wanted = _CACHE / name, "\n".join(packages)
        if _fresh(folder, wanted):
            continue
        if uv is None:
            raise Missing("uv is not here; `make interop` brings it")
        print(f"fetching {', '.join(packages)}", file=sys.stderr)
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], name)
        _run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages], name)
        (folder / ".ready").write_text(wanted)
    return Tools()
