"""`python -m bench.interop`: clients and servers of others, direct and through Fulcrum; differences are failures.

Needs the network once (npm and PyPI), git, and about four minutes. Legs: `inspector` (the MCP Inspector's command line,
byte for byte), `clients` (Python SDK 2.x and 1.x, fastmcp, TypeScript SDK; features of a reference server made with the
Python SDK, a denial included), `servers` (server-everything, server-filesystem, mcp-server-time, mcp-server-git).
Exit codes: 0 all the same, 1 something differs, 3 something could not be fetched or started.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from bench.columns import Missing
from bench.interop.clients import compare_clients, compare_servers
from bench.interop.fetch import fetch
from bench.interop.inspector import compare_inspector
from bench.interop.rig import gateway, reference

_LEGS = ("inspector", "clients", "servers")


def _run(legs: list[str], folder: Path) -> list[str]:
    tools, found = fetch(), list[str]()
    if "servers" in legs:
        found += compare_servers(tools, folder)
    if "inspector" not in legs and "clients" not in legs:
        return found
    with reference(folder) as address:
        if "inspector" in legs:
            with gateway({"reference": {"url": address}}, folder / "inspector") as origin:
                found += compare_inspector(tools, address, f"{origin}/servers/reference/mcp", folder)
        if "clients" in legs:
            found += compare_clients(tools, address, folder)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.interop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leg", choices=_LEGS, action="append", default=[], help="default: all of them")
    options = parser.parse_args()
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="fulcrum-interop-") as folder:
            found = _run(options.leg or list(_LEGS), Path(folder))
    except Missing as reason:
        print(reason, file=sys.stderr)
        return 3
    for difference in found:
        print(f"DIFFERS {difference}")
    print("all the same" if not found else f"{len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
