"""`python -m bench`: run the columns interleaved and write the table."""

import argparse
import contextlib
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.columns import COLUMNS, Missing, Running
from bench.load import Report, apart
from bench.processes import cores, free_port, python, started, until_listening
from bench.report import Cell, Result, markdown

__all__ = ["main"]

CONNECTIONS = (1, 8, 32)


def _posts(upstream: str) -> int:
    with urllib.request.urlopen(upstream.replace("/mcp", "/posts"), timeout=10) as answer:
        return int(answer.read())


def _first_answer(running: Running, on: set[int], began: float) -> float:
    """Milliseconds from the start to the first right answer; Missing when there is none within 60 s."""
    report = Report(0, 0, 0.0, 0.0, 0.0)
    while time.monotonic() - began < 60:
        report = apart(running.target, 1, on, calls=1, seconds=10)
        if report.calls == 1 and report.wrong == 0:
            return 1000 * (time.monotonic() - began)
        time.sleep(0.05)
    raise Missing(f"no right answer within 60 s; the last: {report.first_wrong}")


def _measure(running: Running, upstream: str, connections: int, on: set[int], seconds: float) -> Cell:
    apart(running.target, connections, on, calls=20 * connections, seconds=5)
    posts = _posts(upstream)
    before = running.tree.usage() if running.tree else None
    report = apart(running.target, connections, on, seconds=seconds)
    after = running.tree.usage() if running.tree else None
    calls = max(report.calls, 1)
    return Cell(
        report=report,
        cpu=1e6 * (after.cpu - before.cpu) / calls if before and after else 0.0,
        rss=after.rss / 2**20 if after else 0.0,
        posts=(_posts(upstream) - posts) / calls,
    )


def _run(options: argparse.Namespace) -> Result:
    gateway_cores, other_cores = cores(options.pin)
    result = Result(rounds=options.rounds, seconds=options.seconds, pinned=gateway_cores != other_cores)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-bench-")))
        port = free_port()
        upstream = f"http://127.0.0.1:{port}/mcp"
        echo = stack.enter_context(started(python("-m", "bench.echo", str(port)), folder / "echo.log", other_cores))
        until_listening(port, echo, 20)
        running: dict[str, Running] = {}
        for name in options.columns:
            own = folder / name
            own.mkdir()
            began = time.monotonic()
            try:
                running[name] = stack.enter_context(COLUMNS[name].start(upstream, own, gateway_cores))
                ready = 1000 * (time.monotonic() - began)
                result.ready[name] = (ready, _first_answer(running[name], other_cores, began))
            except Missing as reason:
                running.pop(name, None)
                result.missing[name] = str(reason)
                print(f"{name}: left out: {reason}", file=sys.stderr)
        for number in range(options.rounds):
            for connections in CONNECTIONS:
                for name, gateway in running.items():
                    cell = _measure(gateway, upstream, connections, other_cores, options.seconds)
                    result.cells.setdefault((name, connections), []).append(cell)
                    print(
                        f"round {number + 1}  {name:8} {connections:3} connections  {cell.report.calls:7} calls  "
                        f"{cell.cpu:8.1f} us CPU  p50 {cell.report.p50:7.3f} ms  p99 {cell.report.p99:7.3f} ms"
                        + (f"  {cell.report.wrong} WRONG: {cell.report.first_wrong}" if cell.report.wrong else ""),
                        file=sys.stderr,
                    )
    return result


def _columns(text: str) -> list[str]:
    names = text.replace(",", " ").split()
    for name in names:
        if name not in COLUMNS:
            raise argparse.ArgumentTypeError(f"no column {name!r}; there are {', '.join(COLUMNS)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--columns", type=_columns, default=list(COLUMNS), help="names, default all: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each cell, default %(default)s")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let the gateway use every core")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latest.md")
    options = parser.parse_args()
    try:
        result = _run(options)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    text = markdown(result)
    options.out.write_text(text)
    print(text)
    wrong = sum(cell.report.wrong for cells in result.cells.values() for cell in cells)
    return 1 if wrong or not result.cells else 0


if __name__ == "__main__":
    sys.exit(main())
