"""`python -m bench.profile`: where the time of a governed call goes.

Starts Fulcrum as the bench does, under cProfile (all threads; functions by own CPU time) or, with
`--sampler py-spy` where py-spy is installed, under a sampler that sees native code and costs nothing. A profile shows
proportions; the bench shows what a call costs.
"""

import argparse
import contextlib
import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.columns import Missing, fulcrum
from bench.load import apart
from bench.processes import cores, free_port, python, started, until_listening

__all__ = ["main"]

_RUN = """\
import atexit, cProfile, pstats, sys, threading, time

class Profile(cProfile.Profile):
    def create_stats(self):  # without ending what other threads are still in the middle of
        self.snapshot_stats()

profiles = [Profile(time.thread_time)]
run = threading.Thread.run

def profiled(thread):
    profile = Profile(time.thread_time)
    profiles.append(profile)
    profile.runcall(run, thread)

@atexit.register
def dump():
    stats = pstats.Stats(profiles[0])
    for profile in filter(cProfile.Profile.getstats, profiles[1:]):
        stats.add(profile)
    stats.dump_stats({out!r})

threading.Thread.run = profiled
sys.argv = ["fulcrum", *sys.argv[2:]]
from fulcrum_mcp.cli import main
profiles[0].runcall(main)
"""


def _command(sampler: str, out: Path, folder: Path) -> list[str]:
    if sampler == "cprofile":
        script = folder / "profiled.py"
        script.write_text(_RUN.format(out=str(out)))
        return python(str(script), "--")
    binary = shutil.which("py-spy")
    if binary is None:
        raise Missing("py-spy is not installed; leave --sampler out for cProfile")
    return [binary, "record", "--native", "--rate", "500", "--output", str(out), "--", str(_fulcrum())]


def _fulcrum() -> Path:
    return Path(sys.executable).parent / "fulcrum"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--sampler", choices=("cprofile", "py-spy"), default="cprofile")
    parser.add_argument("--out", type=Path, default=Path("profile.out"), help="pstats file, or py-spy's flame graph")
    options = parser.parse_args()
    options.out.unlink(missing_ok=True)
    gateway_cores, other_cores = cores(pin=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-profile-")))
        port = free_port()
        upstream = f"http://127.0.0.1:{port}/mcp"
        echo = stack.enter_context(started(python("-m", "bench.echo", str(port)), folder / "echo.log", other_cores))
        until_listening(port, echo, 20)
        try:
            program = _command(options.sampler, options.out.resolve(), folder)
            running = stack.enter_context(fulcrum(upstream, folder, gateway_cores, program=program))
        except Missing as reason:
            print(reason, file=sys.stderr)
            return 3
        report = apart(running.target, options.connections, other_cores, seconds=options.seconds)
        assert running.tree is not None
        running.tree.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.tree.process.wait(timeout=20)
        if not options.out.exists() and running.log is not None:
            print(
                f"no profile was written; the gateway's last words: {running.log.read_text()[-2000:]}", file=sys.stderr
            )
            return 1
    print(f"{report.calls} calls, {report.wrong} wrong, p50 {report.p50:.3f} ms (profiled). {report.first_wrong}")
    for stage, milliseconds in report.stages.items():
        print(f"  {stage:12} {milliseconds:.3f} ms")
    if options.sampler == "cprofile":
        pstats.Stats(str(options.out)).sort_stats("tottime").print_stats(options.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
