"""`python -m bench.soak`: many governed calls, and whether memory stays flat.

200,000 calls at 32 connections by default; resident memory of the gateway's tree after each tenth. Exits with 1 when an
answer is wrong or the last tenth ends more than 5 MiB above the second (the first fills pools and caches).
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from bench.columns import Missing, fulcrum
from bench.load import apart
from bench.processes import cores, free_port, python, started, until_listening

__all__ = ["main"]

_TENTHS = 10
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--grow", type=float, default=5, help="MiB that the last nine tenths may add")
    options = parser.parse_args()
    gateway_cores, other_cores = cores(pin=True)
    sizes: list[float] = []
    wrong = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fulcrum-soak-")))
        port = free_port()
        upstream = f"http://127.0.0.1:{port}/mcp"
        echo = stack.enter_context(started(python("-m", "bench.echo", str(port)), folder / "echo.log", other_cores))
        until_listening(port, echo, 20)
        try:
            running = stack.enter_context(fulcrum(upstream, folder, gateway_cores))
        except Missing as reason:
            print(reason, file=sys.stderr)
            return 3
        assert running.tree is not None
        for tenth in range(_TENTHS):
            calls = options.calls // _TENTHS
            report = apart(running.target, options.connections, other_cores, calls=calls, seconds=600)
            wrong += report.wrong
            sizes.append(running.tree.usage().rss / _MIB)
            rate = report.calls / report.seconds
            print(
                f"{calls * (tenth + 1):8,} calls  RSS {sizes[-1]:6.1f} MiB  {rate:7,.0f} calls/s  "
                f"p99 {report.p99:6.2f} ms  {report.wrong} wrong {report.first_wrong}"
            )
    grown = sizes[-1] - sizes[1]
    print(f"from the second tenth to the last: {grown:+.1f} MiB; {wrong} wrong")
    return 1 if wrong or grown > options.grow else 0


if __name__ == "__main__":
    sys.exit(main())
