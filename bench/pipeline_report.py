"""What a run of the pipeline has shown, as Markdown."""

import dataclasses
import os
import time

__all__ = ["Leg", "Outage", "Run", "markdown"]

_PARTS = ("writer", "courier", "nats", "processor", "postgres")


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
    """A load for a while. `cpu`: microseconds per record by process, lags: seconds, `sizes`: the processor's, MiB."""

    name: str
    seconds: float
    stored: int
    written: int
    cpu: dict[str, float]
    lag: float
    worst_lag: float
    sizes: list[float]
    load: str

    @property
    def rate(self) -> float:
        return self.stored / self.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """One part gone for `seconds`; `behind` records waited when it came back, `level` seconds later none did."""

    part: str
    seconds: float
    behind: int
    level: float
    refused: int


@dataclasses.dataclass(slots=True)
class Run:
    rate: float
    window: int
    load: str
    command: str = ""
    legs: list[Leg] = dataclasses.field(default_factory=list[Leg])
    outages: list[Outage] = dataclasses.field(default_factory=list[Outage])
    drains: list[float] = dataclasses.field(default_factory=list[float])
    written: int = 0
    rows: int = 0
    dead_letters: int = 0


def _leg(leg: Leg) -> str:
    cpu = [f"{leg.cpu.get(part, 0.0):.0f}" for part in _PARTS]
    total = sum(leg.cpu.values())
    cells = [leg.name, f"**{leg.rate:,.0f}**", f"{leg.written / leg.seconds:,.0f}", f"{leg.seconds:.0f}", *cpu]
    cells += [f"{total:.0f}", f"{leg.rate * total / 1e6:.2f}", f"{leg.lag:.2f}", f"{leg.worst_lag:.2f}", leg.load]
    return f"| {' | '.join(cells)} |"


def _memory(leg: Leg) -> str:
    """Means of the leg's quarters, so that one look counts for little."""
    quarter = max(1, len(leg.sizes) // 4)
    means = [sum(part) / len(part) for at in range(4) if (part := leg.sizes[at * quarter : (at + 1) * quarter])]
    return f"- {leg.name}, {leg.seconds:.0f} s: " + ", ".join(f"{mean:.0f}" for mean in means)


def markdown(run: Run) -> str:
    """The page that `make bench-pipeline` writes."""
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    head = ("load", "stored/s", "written/s", "seconds", *(f"{part} us" for part in _PARTS), "all us", "cores got")
    head += ("lag p50 s", "lag worst s", "machine's load 1, 5, 15 min")
    lines = [
        "# From the spool into Postgres",
        "",
        f"{date} UTC, {os.cpu_count()} cores, all processes on them; the machine's load at the start: {run.load}.",
        "",
        f"`{run.command}`",
        "",
        "One writer through a real spool (`sync`: an fdatasync every group commit), records of about 1.2 KB, every",
        "second one with inputs, four chains; one courier; NATS with `sync_interval: always`; one `fulcrum processor`;",
        "Postgres 18 with fsync and synchronous_commit on. Stored means: checked by the processor, in Postgres. CPU is",
        "microseconds per stored record, of all the processes of each part; `cores got`: what they had of the machine,",
        "so that runs beside other work can be compared. As fast as it goes: with at most",
        f"{run.window:,} records on their way.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *map(_leg, run.legs),
    ]
    if run.outages:
        lines += [
            "",
            f"Outages under {run.rate:,.0f} records/s that go on: the part is killed and started again;",
            "level is when no record has waited for more than a second.",
            "",
            "| gone | for s | records waiting at its return | level again after s | refused by the spool |",
            "|---|---|---|---|---|",
            *(f"| {o.part} | {o.seconds:.0f} | {o.behind:,} | **{o.level:.1f}** | {o.refused} |" for o in run.outages),
        ]
    lines += ["", "Resident memory of the processor, MiB, means of four quarters:", "", *map(_memory, run.legs)]
    drains = ", ".join(f"{drain:.1f}" for drain in run.drains)
    lines += [
        "",
        f"{run.written:,} records written, {run.rows:,} in the store, {run.dead_letters} dead letters;",
        f"the last of them were checked {drains} s after the writer stopped.",
    ]
    return "\n".join(lines) + "\n"
