"""The reference server and a gateway before it, as processes."""

import contextlib
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.columns import Missing
from bench.processes import free_port, python, started, until_listening

__all__ = ["KEY", "POLICIES", "fulcrum", "gateway", "reference", "stdio_reference"]

POLICIES = Path(__file__).parent / "policies"
KEY = "flcrm_sk_interop_" + "0123456789abcdef" * 3
_SERVER = Path(__file__).parent / "server.py"


def fulcrum() -> list[str]:
    return python("-m", "fulcrum_mcp.cli")


def stdio_reference() -> list[str]:
    """The reference server's command."""
    return [sys.executable, str(_SERVER), "stdio"]


@contextlib.contextmanager
def reference(folder: Path) -> Generator[str]:
    """The reference server over HTTP; yields its address."""
    port, log = free_port(), folder / "reference.log"
    with started(python(str(_SERVER), str(port)), log, set()) as tree:
        try:
            until_listening(port, tree, 60)
        except RuntimeError as fault:
            raise Missing(f"reference server: {fault}: {log.read_text()[-800:]}") from fault
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def gateway(servers: Mapping[str, Any], folder: Path, options: Sequence[str] = ()) -> Generator[str]:
    """Fulcrum before these `mcpServers`, under a policy that denies `forbidden`, with a key; yields its origin."""
    folder.mkdir(exist_ok=True)
    port, log, configuration = free_port(), folder / "gateway.log", folder / "servers.mcp.json"
    configuration.write_text(json.dumps({"mcpServers": servers}))
    command = [
        *(*fulcrum(), "up", "--config", str(configuration), "--policies", str(POLICIES)),
        *("--data", str(folder / "data"), "--http", f"127.0.0.1:{port}", "--grpc", f"127.0.0.1:{free_port()}"),
        *options,
    ]
    with started(command, log, set(), {"FULCRUM_ADMIN_KEY": KEY}) as tree:
        try:
            until_listening(port, tree, 60)
        except RuntimeError as fault:
            raise Missing(f"gateway: {fault}: {log.read_text(errors='replace')[-800:]}") from fault
        yield f"http://127.0.0.1:{port}"
