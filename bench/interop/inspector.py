"""The MCP Inspector's command line, in both eras: what it prints through the gateway is what it prints without it."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.interop.fetch import Tools
from bench.interop.rig import KEY

__all__ = ["CALLS", "compare_inspector"]

CALLS: tuple[tuple[str, ...], ...] = (
    ("tools/list",),
    ("tools/call", "--tool-name", "echo", "--tool-arg", "text=\u00e4\u00f6 \u2028 \U0001f600"),
    ("tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3"),
    ("tools/call", "--tool-name", "fail", "--tool-arg", "why=because"),
    ("tools/call", "--tool-name", "count", "--tool-arg", "steps=3"),
    ("tools/call", "--tool-name", "ask"),
    ("tools/call", "--tool-name", "echo", "--tool-arg", "text=x", "--metadata", "vendor=1"),
    ("resources/list",),
    ("resources/templates/list",),
    ("resources/read", "--uri", "note://one"),
    ("resources/read", "--uri", "note://by/ada"),
    ("resources/read", "--uri", "other://nothing"),
    ("prompts/list",),
    ("prompts/get", "--prompt-name", "greet", "--prompt-args", "name=Ada"),
    ("prompts/get", "--prompt-name", "nobody"),
)


class Printed(NamedTuple):
    """What one run gave."""

    code: int
    out: str
    err: str


def _run(tools: Tools, target: Sequence[str], era: str, call: Sequence[str], home: Path) -> Printed:
    method, *options = call
    command = [str(tools.node), str(tools.inspector), "--cli", *target, "--protocol-era", era, "--method", method]
    done = subprocess.run(
        [*command, *options],
        env={"PATH": str(tools.node.parent), "HOME": str(home), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Printed(done.returncode, done.stdout, done.stderr)


def compare_inspector(tools: Tools, direct: str, through: str, home: Path) -> list[str]:
    """Prints how many of the calls gave the same, byte for byte; returns the differences."""
    differences: list[str] = []
    for era in ("legacy", "modern"):
        same = 0
        for call in CALLS:
            with ThreadPoolExecutor(2) as both:
                there = both.submit(_run, tools, [direct, "--transport", "http"], era, call, home)
                header = ["--header", f"Authorization: Bearer {KEY}"]
                here = both.submit(_run, tools, [through, "--transport", "http", *header], era, call, home)
            if not there.result().out and not there.result().err:
                differences.append(f"inspector {era} {' '.join(call)}: printed nothing, direct")
            elif there.result() == here.result():
                same += 1
            else:
                differences.append(f"inspector {era} {' '.join(call)}:\n  {there.result()}\n  {here.result()}")
        print(f"inspector, {era}: {same} of {len(CALLS)} calls print the same", flush=True)
    return differences
