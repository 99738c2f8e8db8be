"""`python -m bench.through COMMAND... URL`: run a client's command against URL through a Fulcrum of its own.

The client suites of MCP's conformance append the address of their server to the client's command; this stands between.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from bench.columns import Missing
from bench.processes import free_port, python, started, until_listening

__all__ = ["allowing_all", "main"]

_POLICY = Path(__file__).parents[1] / "policies" / "starter" / "allow_all"


@contextlib.contextmanager
def allowing_all(upstream: str, folder: Path) -> Generator[str]:
    """Fulcrum in front of `upstream` under allow_all, no key needed; yields the address of that one server."""
    http, grpc, log = free_port(), free_port(), folder / "gateway.log"
    configuration = folder / "fulcrum.toml"
    configuration.write_text(f'[[server]]\nname = "reference"\nurl = "{upstream}"\n')
    command = [
        *python("-m", "fulcrum_mcp.cli", "up", "--anonymous", "conformance"),
        *("--config", str(configuration), "--policies", str(_POLICY), "--data", str(folder / "data")),
        *("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}"),
    ]
    with started(command, log, set()) as tree:
        try:
            until_listening(http, tree, 60)
        except RuntimeError as fault:
            raise Missing(f"{fault}; its last words: {log.read_text(errors='replace')[-800:]}") from fault
        yield f"http://127.0.0.1:{http}/servers/reference/mcp"


def main() -> int:
    *command, url = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="fulcrum-through-") as folder, allowing_all(url, Path(folder)) as address:
        return subprocess.run([*command, address], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
