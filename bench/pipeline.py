"""`python -m bench.pipeline`: records a second from the spool into Postgres, and how an outage is made good.

A writer makes records through a real spool (fdatasync at every group commit), a real courier carries them to a real
NATS (`sync_interval: always`), one real `fulcrum processor` stores, checks and signs them in a real Postgres (fsync
on). What counts as stored is what the processor has checked: the sum of the chains' sizes in the database.

Three legs: as fast as it goes with a bounded number of records on their way; a steady load for resident memory; the
same load while NATS, Postgres and the processor are each gone for a while.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
import psycopg

from bench.parts import Parts, load_of_machine, opened, shown, usage_of
from bench.pipeline_report import Leg, Outage, Run, markdown
from bench.processes import Tree, Usage, free_port, python, started

__all__ = ["main"]

_SIZES = "SELECT coalesce(sum(size), 0)::bigint, count(*) FILTER (WHERE broken IS NOT NULL) FROM fulcrum.audit_chains"
_BAD = "SELECT (SELECT count(*) FROM fulcrum.audit_faults), (SELECT count(*) FROM fulcrum.audit_events)"
_LOOK = 0.2
_ZERO = 1.0
"""Seconds of lag that a steady pipeline has: batches, polls. No more than that is no lag."""


class Line:
    """A pipeline that runs."""

    def __init__(self, folder: Path, parts: Parts) -> None:
        self.folder = folder
        self.parts = parts
        self.environment = parts.environment()
        self.data = folder / "data"
        self.data.mkdir()
        self.stored_file = folder / "stored"
        self.stored = 0
        self.stack = contextlib.ExitStack()
        self.trees: dict[str, Tree] = {}
        self._processor: contextlib.ExitStack | None = None
        self._writer: contextlib.ExitStack | None = None
        self._seen: list[tuple[float, int]] = []
        self._before = 0
        """Records of writers that have ended."""
        self._read = 0
        self._connection: psycopg.Connection[tuple[int, int]] | None = None
        self.refused = 0

    def start_processor(self) -> None:
        self._processor = contextlib.ExitStack()
        command = python("-m", "fulcrum_mcp.cli", "processor", "--data", str(self.folder / "processor"))
        command += ["--http", f"127.0.0.1:{free_port()}", "--log", "warning"]
        log = self.folder / f"processor-{time.monotonic_ns()}.log"
        self.trees["processor"] = self._processor.enter_context(started(command, log, set(), self.environment))

    def kill_processor(self) -> None:
        assert self._processor is not None
        self.trees["processor"].process.kill()
        self._processor.close()

    def start_courier(self) -> None:
        command = python("-m", "bench.pipeline_courier", str(self.data), self.parts.nats.url)
        self.trees["courier"] = self.stack.enter_context(
            started(command, self.folder / "courier.log", set(), self.environment)
        )

    def start_writer(self, *options: str) -> None:
        self._writer = contextlib.ExitStack()
        self._read = 0
        command = python("-m", "bench.pipeline_writer", str(self.data), "--stored", str(self.stored_file), *options)
        self.stored_file.write_text(str(self.stored - self._before))
        log = self.folder / "writer.log"
        self.trees["writer"] = self._writer.enter_context(started(command, log, set()))

    def stop_writer(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self.look()
        self._before = self.written

    @property
    def written(self) -> int:
        return self._seen[-1][1] if self._seen else self._before

    def look(self) -> float:
        """Seconds by which the store is behind: the age of the oldest record that is not in it."""
        with (self.folder / "writer.log").open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            at, written, refused = line.split()
            self._seen.append((float(at), self._before + int(written)))
            self.refused = int(refused)
        with contextlib.suppress(psycopg.Error, OSError):
            self.stored = self._ask()
            self.stored_file.write_text(str(self.stored - self._before))
        late = next((at for at, written in self._seen if written > self.stored), None)
        while len(self._seen) > 1 and self._seen[0][1] <= self.stored:
            del self._seen[0]
        return 0.0 if late is None else time.monotonic() - late

    def _ask(self) -> int:
        if self._connection is None or self._connection.closed:
            url = self.parts.postgres.database_url(self.parts.database)
            self._connection = psycopg.connect(f"{url}?connect_timeout=2", autocommit=True)
        found = self._connection.execute(_SIZES).fetchone()
        assert found is not None
        if found[1]:
            raise RuntimeError(f"{found[1]} chains are broken; see {self.folder}")
        return found[0]

    def usage(self) -> dict[str, Usage]:
        found = {name: usage_of(tree.process.pid) for name, tree in self.trees.items()}
        return found | {name: usage_of(server.pid) for name, server in self.parts.servers.items() if name != "valkey"}

    def size(self) -> int:
        """Resident bytes of the processor."""
        return psutil.Process(self.trees["processor"].process.pid).memory_info().rss

    def watch(self, seconds: float, each: Callable[[float], None] = lambda _: None) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            each(self.look())
            time.sleep(_LOOK)

    def until_level(self, seconds: float, most: float) -> float:
        """Seconds until the lag is `most` for two looks in a row."""
        began = time.monotonic()
        good = 0
        while time.monotonic() - began < seconds:
            good = good + 1 if self.look() <= most else 0
            if good == 2:
                return time.monotonic() - began - _LOOK
            time.sleep(_LOOK)
        raise RuntimeError(f"after {seconds:.0f} s {self.written - self.stored} records are not stored")

    def close(self) -> None:
        for stack in (self._writer, self._processor, self.stack):
            if stack is not None:
                stack.close()
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def running(folder: Path) -> Generator[Line]:
    with opened(folder) as parts:
        line = Line(folder, parts)
        try:
            line.start_processor()
            line.start_courier()
            yield line
        finally:
            line.close()


def measured(line: Line, name: str, seconds: float, warm: float) -> Leg:
    """Watch for so long what is under way already."""
    line.watch(warm)
    before, stored, written, began = line.usage(), line.stored, line.written, time.monotonic()
    lags: list[float] = []
    sizes: list[float] = []

    def note(lag: float) -> None:
        lags.append(lag)
        sizes.append(line.size() / 2**20)

    line.watch(seconds, note)
    took, after = time.monotonic() - began, line.usage()
    records = max(line.stored - stored, 1)
    cpu = {part: 1e6 * (after[part].cpu - before[part].cpu) / records for part in after}
    lags.sort()
    return Leg(
        name, took, records, line.written - written, cpu, lags[len(lags) // 2], lags[-1], sizes, load_of_machine()
    )


def outage(line: Line, name: str, seconds: float, patience: float) -> Outage:
    """One part is killed, and started again after a while, under load all the time."""
    server = line.parts.servers.get(name)
    line.until_level(patience, _ZERO)
    refused = line.refused
    if server is None:
        line.kill_processor()
    else:
        server.kill()
    line.watch(seconds)
    behind = line.written - line.stored
    if server is None:
        line.start_processor()
    else:
        server.start()
    took = line.until_level(patience, _ZERO)
    return Outage(name, seconds, behind, took, line.refused - refused)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(options: argparse.Namespace, folder: Path) -> Run:
    run = Run(rate=options.rate, window=options.window, load=load_of_machine())
    with running(folder) as line:
        if options.seconds:
            line.start_writer("--window", str(options.window))
            run.legs.append(measured(line, "as fast as it goes", options.seconds, warm=8))
            _say(str(run.legs[-1]))
            line.stop_writer()
            run.drains.append(line.until_level(120, 0.0))
        if options.steady or options.outages:
            line.start_writer("--rate", str(options.rate))
        if options.steady:
            run.legs.append(measured(line, f"{options.rate:,.0f} records/s", options.steady, warm=8))
            _say(str(run.legs[-1]))
        for name in options.outages:
            run.outages.append(outage(line, name, options.outage, 300))
            _say(str(run.outages[-1]))
        if options.steady or options.outages:
            line.stop_writer()
            run.drains.append(line.until_level(120, 0.0))
        with psycopg.connect(line.parts.postgres.database_url(line.parts.database)) as connection:
            found = connection.execute(_BAD).fetchone()
        assert found is not None
        run.dead_letters, run.rows, run.written = found[0], found[1], line.written
    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="as fast as it goes; 0: not")
    parser.add_argument("--window", type=int, default=20_000, help="records on their way while it goes so fast")
    parser.add_argument("--rate", type=float, default=2000, help="records/s of the other legs")
    parser.add_argument("--steady", type=float, default=60, help="seconds of steady load; 0: not")
    parser.add_argument("--outage", type=float, default=60, help="seconds that each part is gone")
    parser.add_argument("--outages", nargs="*", default=["nats", "postgres", "processor"])
    parser.add_argument("--keep", type=Path, help="a folder for logs and data, which stays")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pipeline.md")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-pipeline-")))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run = _run(options, folder)
        except KeyboardInterrupt:
            print("stopped; nothing was written", file=sys.stderr)
            return 130
    run.command = shown("bench.pipeline", sys.argv[1:])
    text = markdown(run)
    options.out.write_text(text)
    print(text)
    return 1 if run.dead_letters or run.rows != run.written else 0


if __name__ == "__main__":
    sys.exit(main())
