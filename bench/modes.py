"""`python -m bench.modes`: what a governed call costs in each durability mode, embedded and on the real parts.

All gateways stand in front of one upstream and are measured in turns. The real parts are Postgres (fsync on), Valkey
(append-only file), NATS (`sync_interval: always`) and one `fulcrum processor`, shared by three `fulcrum server`s.
"""

import argparse
import contextlib
import dataclasses
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from bench.columns import COLUMNS, Running, fulcrum
from bench.load import Report, apart
from bench.parts import Parts, load_of_machine, opened, shown, usage_of
from bench.processes import cores, free_port, python, started, until_listening

__all__ = ["main"]

BASE = "embedded sync"
CONNECTIONS = (1, 8)
_PAUSE = 1.0
"""Seconds after a load for the records of its calls to be stored, so that they cost their own cell."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mode:
    """How a gateway is run, and what may be lost with what."""

    verb: str
    durability: str
    lost: str


MODES: Mapping[str, Mode] = {
    BASE: Mode("up", "sync", "nothing that was forwarded, by a kill or a power failure; all of it with the disk"),
    "embedded os": Mode(
        "up", "os", "by a kill nothing; by a power failure what the system had not written, some 30 s at most"
    ),
    "server sync": Mode(
        "server",
        "sync",
        "nothing by a kill or a power failure; with the gateway's disk what Postgres has not confirmed, about a second "
        "of records, more while NATS, the processor or Postgres is gone",
    ),
    "server os": Mode(
        "server",
        "os",
        "by a kill nothing; by a power failure of the gateway what it had neither written nor carried to NATS: the "
        "last tenths of a second, or up to 30 s while NATS is gone",
    ),
    "server stream": Mode(
        "server",
        "stream",
        "nothing with the gateway, disk included; with NATS's disk what Postgres did not have yet (with 3 replicas of "
        "the stream nothing); while NATS is gone calls are denied",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """Microseconds of CPU per call: of the gateway, and of everything behind it."""

    report: Report
    cpu: float
    parts: float


Cells = dict[tuple[str, int], list[Cell]]


class _Site:
    """All gateways, running."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, parts: Parts, on: tuple[set[int], set[int]]) -> None:
        gateways, self.others = on
        port = free_port()
        self.upstream = f"http://127.0.0.1:{port}/mcp"
        command = python("-m", "bench.echo", str(port))
        echo = stack.enter_context(started(command, folder / "echo.log", self.others))
        until_listening(port, echo, 20)
        shared = parts.environment() | {
            "FULCRUM_ADMIN_KEY": f"flcrm_sk_bench_{secrets.token_hex(24)}",
            "FULCRUM_NATS_SYNC_ALWAYS": "true",
        }
        beside = free_port()
        command = python("-m", "fulcrum_mcp.cli", "processor", "--data", str(folder / "processor"))
        command += ["--http", f"127.0.0.1:{beside}", "--log", "warning"]
        processor = stack.enter_context(started(command, folder / "processor.log", set(), shared))
        until_listening(beside, processor, 30)
        self._pids = [processor.process.pid, *(server.pid for server in parts.servers.values())]
        self.running: dict[str, Running] = {}
        self.running["bare"] = stack.enter_context(COLUMNS["bare"].start(self.upstream, folder, gateways))
        for name, mode in MODES.items():
            own = folder / name.replace(" ", "-")
            own.mkdir()
            told = {"FULCRUM_AUDIT_DURABILITY": mode.durability} | (shared if mode.verb == "server" else {})
            started_ = fulcrum(self.upstream, own, gateways, verb=mode.verb, environment=told)
            self.running[name] = stack.enter_context(started_)

    def _behind(self) -> float:
        return sum(usage_of(pid).cpu for pid in self._pids)

    def until_right(self, name: str) -> None:
        """Parts that are connected in the background are there when a call is answered."""
        until = time.monotonic() + 60
        while True:
            report = apart(self.running[name].target, 1, self.others, calls=1, seconds=10)
            if report.calls == 1 and report.wrong == 0:
                return
            if time.monotonic() > until:
                raise RuntimeError(f"{name}: no right answer within 60 s; the last: {report.first_wrong}")
            time.sleep(0.2)

    def measure(self, name: str, connections: int, seconds: float) -> Cell:
        gateway = self.running[name]
        assert gateway.tree is not None
        apart(gateway.target, connections, self.others, calls=20 * connections, seconds=5)
        before, behind = gateway.tree.usage(), self._behind()
        report = apart(gateway.target, connections, self.others, seconds=seconds)
        if name.startswith("server"):
            time.sleep(_PAUSE)
        calls = max(report.calls, 1)
        cpu = 1e6 * (gateway.tree.usage().cpu - before.cpu) / calls
        return Cell(report, cpu, 1e6 * (self._behind() - behind) / calls if name.startswith("server") else 0.0)


def _row(cells: Cells, name: str, count: int) -> str:
    def middle(of: str, which: Callable[[Cell], float]) -> float:
        return median(which(cell) for cell in cells[of, count])

    cpu = middle(name, lambda cell: cell.cpu)
    p50, p99 = middle(name, lambda cell: cell.report.p50), middle(name, lambda cell: cell.report.p99)
    # Of each round on its own, then the middle one: what else the machine did is in both.
    pairs = list(zip(cells[name, count], cells[BASE, count], strict=True))
    to_base = median(mine.report.p50 / base.report.p50 for mine, base in pairs)
    quiet_to_base = median(mine.report.p10 / base.report.p10 for mine, base in pairs)
    stages = {
        stage: median(cell.report.stages.get(stage, 0.0) for cell in cells[name, count])
        for stage in cells[name, count][0].report.stages
    }
    told = ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items()) or "-"
    values = [
        name,
        str(count),
        f"{p50:.2f}",
        f"{p99:.2f}",
        "-" if name == "bare" else f"**{to_base:.2f}**",
        f"{middle(name, lambda cell: cell.report.p10):.2f}",
        "-" if name == "bare" else f"{quiet_to_base:.2f}",
        f"{p50 / middle('bare', lambda cell: cell.report.p50):.2f}",
        f"{cpu:.0f}",
        f"{cpu / middle('bare', lambda cell: cell.cpu):.1f}",
        f"{middle(name, lambda cell: cell.parts):.0f}" if name.startswith("server") else "-",
        f"{middle(name, lambda cell: cell.report.calls / cell.report.seconds):,.0f}",
        told,
    ]
    return f"| {' | '.join(values)} |"


def markdown(cells: Cells, options: argparse.Namespace, loads: tuple[str, str]) -> str:
    """The page that `make bench-modes` writes."""
    titles: tuple[str, ...] = ("mode", "connections", "p50 ms", "p99 ms", f"p50 x {BASE}", "p10 ms", f"p10 x {BASE}")
    titles += (
        "p50 x bare hop",
        "CPU us per call",
        "x bare hop",
        "behind it, us per call",
        "calls/s",
        "stages, mean ms",
    )
    wrong = sum(cell.report.wrong for found in cells.values() for cell in found)
    total = sum(cell.report.calls for found in cells.values() for cell in found)
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    lines = [
        "# What each durability mode costs",
        "",
        f"{date} UTC; the machine's load at the start {loads[0]}, at the end {loads[1]}.",
        "",
        f"`{shown('bench.modes', sys.argv[1:])}`",
        "",
        f"{options.rounds} interleaved rounds of {options.seconds:g} s a cell, medians; a ratio is the median of the",
        "rounds' own ratios. A call has two records, two budgets and three policies. `behind it` is the CPU of Valkey,",
        "NATS, Postgres and the processor. p10 is what a call takes while nobody else wants the cores: on a machine",
        "with other work it says more than p50. Compare within this table only.",
        "",
        "A call waits for one flush: in `sync` for its own disk's, in `stream` for that of NATS and the way there and",
        "back, 0.15 ms more where both are alone (docs/adr/0009). The end of a call rides in the next call's step.",
        "NATS flushes once more for each message when a processor has stored it; nobody waits for that.",
        "",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
        *(_row(cells, name, count) for count in CONNECTIONS for name in ("bare", *MODES)),
        "",
        "| mode | what may be lost |",
        "|---|---|",
        *(f"| {name} | {mode.lost} |" for name, mode in MODES.items()),
        "",
        f"{total:,} calls, {wrong} wrong answers.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.modes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each cell, default %(default)s")
    parser.add_argument("--pin", action="store_true", help="gateways on a core of their own; everything else shares")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "modes.md")
    options = parser.parse_args()
    cells: Cells = {}
    load = load_of_machine()
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-modes-")))
            site = _Site(stack, folder, stack.enter_context(opened(folder)), cores(options.pin))
            for name in site.running:
                site.until_right(name)
            for number in range(options.rounds):
                for connections in CONNECTIONS:
                    for name in site.running:
                        cell = site.measure(name, connections, options.seconds)
                        cells.setdefault((name, connections), []).append(cell)
                        print(
                            f"round {number + 1}  {name:14} {connections:3} connections  {cell.report.calls:7} calls  "
                            f"{cell.cpu:7.0f} us CPU  p50 {cell.report.p50:7.3f} ms  p99 {cell.report.p99:7.3f} ms"
                            + (f"  {cell.report.wrong} WRONG: {cell.report.first_wrong}" if cell.report.wrong else ""),
                            file=sys.stderr,
                        )
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    text = markdown(cells, options, (load, load_of_machine()))
    options.out.write_text(text)
    print(text)
    return 1 if any(cell.report.wrong for found in cells.values() for cell in found) else 0


if __name__ == "__main__":
    sys.exit(main())
