"""A run's figures as Markdown: medians over the rounds, ratios to the bare hop of the same run."""

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.columns import COLUMNS
from bench.load import Report

__all__ = ["Cell", "Result", "markdown"]

_METHOD = (
    "A call is a tools/call of 2026-07-28 with 1 KB of text that the upstream echoes; closed loop; every answer must",
    "hold its own mark. CPU is that of the gateway's whole process tree. Only ratios within this table count: compare",
    "nothing across machines or runs.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One column at one number of connections in one round. `cpu` is microseconds per call, `rss` MiB."""

    report: Report
    cpu: float
    rss: float
    posts: float


@dataclasses.dataclass(slots=True)
class Result:
    """A whole run. `ready` holds milliseconds from start to listening and to the first right answer."""

    rounds: int
    seconds: float
    pinned: bool
    cells: dict[tuple[str, int], list[Cell]] = dataclasses.field(default_factory=dict[tuple[str, int], list[Cell]])
    ready: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict[str, tuple[float, float]])
    missing: dict[str, str] = dataclasses.field(default_factory=dict[str, str])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _head(result: Result) -> list[str]:
    versions = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec")
    )
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    system = f"{platform.system()} {platform.release()}"
    where = "the gateway alone on one core" if result.pinned else "not pinned"
    return [
        "# What a governed call costs",
        "",
        f"{date} UTC; {_processor()}, {os.cpu_count()} cores; {system}; {versions}.",
        "",
        f"`make bench`: one run, {result.rounds} interleaved rounds of {result.seconds:g} s a cell, medians; {where}.",
        *_METHOD,
        "",
    ]


def _cpu(cell: Cell) -> float:
    return cell.cpu


def _p50(cell: Cell) -> float:
    return cell.report.p50


def markdown(result: Result) -> str:
    """The page that `make bench` writes."""
    connections = sorted({count for _, count in result.cells})
    names = [name for name in COLUMNS if any(name == column for column, _ in result.cells)]

    def middle(name: str, count: int, of: Callable[[Cell], float]) -> float:
        return median(of(cell) for cell in result.cells[name, count])

    def row(name: str, count: int) -> list[str]:
        calls = middle(name, count, lambda cell: cell.report.calls / cell.report.seconds)
        p50, p99 = middle(name, count, _p50), middle(name, count, lambda cell: cell.report.p99)
        cpu = middle(name, count, _cpu)
        ratio = added = "-"
        if "bare" in names and name != "direct" and middle("bare", count, _cpu):
            ratio = f"{cpu / middle('bare', count, _cpu):.2f}"
        if "direct" in names and name != "direct":
            added = f"{p50 - middle('direct', count, _p50):.3f}"
        return [
            name,
            str(count),
            f"**{cpu:.0f}**" if name != "direct" else "-",
            ratio,
            f"{calls:,.0f}",
            f"{p50:.3f}",
            f"{p99:.3f}",
            added,
            f"{middle(name, count, lambda cell: cell.posts):.2f}",
            f"{middle(name, count, lambda cell: cell.rss):.0f}" if name != "direct" else "-",
        ]

    titles = (
        "column",
        "connections",
        "CPU us per call",
        "x bare hop",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "added p50 ms",
        "upstream POSTs per call",
        "RSS MiB",
    )
    lines = [*_head(result), "| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(row(name, count)) + " |" for count in connections for name in names]
    lines += ["", "| column | what it is | start to listening ms | to the first right answer ms |", "|---|---|---|---|"]
    for name in names:
        listening, answer = result.ready[name]
        times = ["-", "-"] if name == "direct" else [f"{listening:.0f}", f"{answer:.0f}"]
        lines.append(f"| {name} | {COLUMNS[name].what} | {' | '.join(times)} |")
    lines += [f"| {name} | left out: {reason.splitlines()[0]} | - | - |" for name, reason in result.missing.items()]
    lines += _stages(result)
    wrong = sum(cell.report.wrong for cells in result.cells.values() for cell in cells)
    total = sum(cell.report.calls for cells in result.cells.values() for cell in cells)
    lines += ["", f"{total:,} calls, {wrong} wrong answers."]
    return "\n".join(lines) + "\n"


def _stages(result: Result) -> list[str]:
    """Where the gateway itself says the time goes (`Server-Timing`), wall milliseconds, one in sixteen answers."""
    lines: list[str] = []
    for (name, count), cells in sorted(result.cells.items(), key=lambda item: item[0][1]):
        stages = {
            stage: median(cell.report.stages.get(stage, 0.0) for cell in cells) for stage in cells[0].report.stages
        }
        if stages:
            text = ", ".join(f"{stage} {value:.3f}" for stage, value in stages.items())
            lines.append(f"- {name}, {count} connections: {text}")
    return ["", "`Server-Timing`, mean milliseconds of wall time by stage:", "", *lines] if lines else []
