"""Clients that we did not write: what they get through the gateway is what they get without it, but for the denial."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.interop.fetch import Tools
from bench.interop.rig import KEY, POLICIES, fulcrum, gateway, stdio_reference

__all__ = ["Program", "Target", "compare_clients", "compare_servers", "differences", "sdk2", "steps_of", "wrapped"]

_HERE = Path(__file__).parent / "programs"
_SECONDS = 150
_DENIED = re.compile(r"Denied by policy interop \(forbidden\): this tool is not for you\. Decision dec_\S+\.")
_UNKNOWN = re.compile(r"Denied \(unknown_tool\): server 'reference' offers no tool 'nothing'\.")
Steps = list[tuple[str, Any]]


class Target(NamedTuple):
    """Where a client goes: the plan of its program."""

    name: str
    plan: Mapping[str, Any]
    merged: bool = False


class Program(NamedTuple):
    """A client, and the ways it can be told to negotiate."""

    name: str
    command: tuple[str, ...]
    modes: tuple[str, ...] = ("",)


def sdk2() -> Program:
    """The Python SDK's client of this environment."""
    return Program("Python SDK 2.x", (sys.executable, str(_HERE / "sdk.py")))


def _clients(tools: Tools) -> list[Program]:
    modes = ("auto", "legacy", "2026-07-28")
    return [
        sdk2()._replace(modes=modes),
        Program("Python SDK 1.x", (str(tools.sdk1), str(_HERE / "sdk.py"))),
        Program("fastmcp", (str(tools.fastmcp), str(_HERE / "fastmcp_client.py")), modes),
        Program("TypeScript SDK 1.x", (str(tools.node), str(tools.typescript))),
    ]


def steps_of(client: Program, mode: str, plan: Mapping[str, Any]) -> Steps:
    """Run a client; every step it tells of. A client that ends early or says nothing gives the step `ended`."""
    text = json.dumps({**plan, **({"mode": mode} if mode else {})})
    try:
        done = subprocess.run(
            [*client.command, text], capture_output=True, text=True, timeout=_SECONDS, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired:
        return [("ended", f"not within {_SECONDS} s")]
    steps: Steps = [(step, value) for step, value in map(json.loads, filter(None, done.stdout.split("\n")))]
    if done.returncode != 0 or not steps:
        steps.append(("ended", f"exit code {done.returncode}: {done.stderr[-500:]}"))
    return steps


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}


def _plain(steps: Steps, *, merged: bool) -> Iterator[tuple[str, Any]]:
    """Without what may differ: how much progress came in time, who a merged list says it is from."""
    for step, value in steps:
        if step in ("progress", "end"):
            continue
        bare = merged and isinstance(value, dict)
        yield step, {name: member for name, member in value.items() if name != "_meta"} if bare else value


def differences(direct: Steps, through: Steps, *, merged: bool) -> list[str]:
    """What is not as it should be; `merged`: lists carry the gateway's `_meta`, not the upstream's."""
    found: list[str] = []
    before, after = (list(_plain(steps, merged=merged)) for steps in (direct, through))
    if [step for step, _ in before] != [step for step, _ in after]:
        return [f"steps {[step for step, _ in before]} became {[step for step, _ in after]}: {after[-1]}"]
    for (step, value), (_, now) in zip(before, after, strict=True):
        text = json.dumps(now)
        if step == "forbidden":
            if _DENIED.search(text) is None or now.get("isError") is not True or "structuredContent" in now:
                found.append(f"{step}: not a denial: {text}")
        elif step == "nothing":
            if _UNKNOWN.search(text) is None:
                found.append(f"{step}: {text}")
        elif value != now:
            found.append(f"{step}: {json.dumps(value)} became {text}")
    progress = [value for step, value in through if step == "progress"]
    if any(step == "progress" for step, _ in direct) and not progress:
        found.append("progress: none came")
    return found


def wrapped(command: Sequence[str], folder: Path) -> list[str]:
    """The same command under `fulcrum wrap`."""
    options = ["--data", str(folder / "wrap"), "--policies", str(POLICIES), "--name", "reference"]
    return [*fulcrum(), "wrap", *options, "--", *command]


def _compare(client: Program, mode: str, direct: Target, others: Sequence[Target]) -> list[str]:
    label = f"{client.name}{f', {mode}' if mode else ''}"
    first = steps_of(client, mode, direct.plan)
    if len(first) < 2 or first[-1][0] in ("ended", "connection"):
        return [f"{label}, {direct.name}: {first[-1:]}"]
    found: list[str] = []
    told: list[str] = []
    for target in others:
        wrong = differences(first, steps_of(client, mode, target.plan), merged=target.merged)
        told.append(f"{target.name} {'the same' if not wrong else f'{len(wrong)} DIFFERENCES'}")
        found.extend(f"{label}, {target.name}: {difference}" for difference in wrong)
    print(f"{label}: {len(first)} steps {direct.name}; {', '.join(told)}", flush=True)
    return found


def compare_clients(tools: Tools, address: str, folder: Path) -> list[str]:
    """Every client, through every feature of the reference server, over HTTP and over stdio."""
    found: list[str] = []
    header = {"headers": {"Authorization": f"Bearer {KEY}"}}
    with gateway({"reference": {"url": address}}, folder / "programs") as origin:
        http = Target("direct", {"url": address, "name": "direct"})
        through = (
            Target("/servers/reference/mcp", {"url": f"{origin}/servers/reference/mcp", "name": "single", **header}),
            Target("/mcp", {"url": f"{origin}/mcp", "name": "merged", "prefix": "reference__", **header}, merged=True),
        )
        stdio = Target("over stdio, direct", {"command": stdio_reference(), "name": "io"})
        wrap = (Target("wrap", {"command": wrapped(stdio_reference(), folder), "name": "wrap"}),)
        for client in _clients(tools):
            for mode in client.modes:
                found += _compare(client, mode, http, through)
                found += _compare(client, mode, stdio, wrap)
    return found


def compare_servers(tools: Tools, folder: Path) -> list[str]:
    """Servers that we did not write, over stdio: directly, by the three ways through the gateway."""
    repository = folder / "repository"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True, timeout=60)
    (repository / "note.txt").write_text("a note\n")
    here = str(repository)
    noon = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    servers: dict[str, tuple[list[str], list[Any]]] = {
        "everything": (
            [str(tools.node), str(tools.everything)],
            [
                ["echo", {"message": "\u00e4"}],
                ["get-sum", {"a": 1, "b": 2}],
                ["get-tiny-image", {}],
                ["get-structured-content", {"location": "Chicago"}],
                ["get-annotated-message", {"messageType": "error"}],
            ],
        ),
        "filesystem": (
            [str(tools.node), str(tools.filesystem), here],
            [
                ["read_text_file", {"path": f"{here}/note.txt"}],
                ["list_directory", {"path": "/"}],
                ["list_allowed_directories", {}],
            ],
        ),
        "time": (
            [str(tools.servers / "mcp-server-time"), "--local-timezone", "UTC"],
            [["convert_time", noon], ["convert_time", {**noon, "time": "25:00"}]],
        ),
        "git": (
            [str(tools.servers / "mcp-server-git"), "--repository", here],
            [["git_status", {"repo_path": here}], ["git_log", {"repo_path": here}]],
        ),
    }
    found: list[str] = []
    header = {"headers": {"Authorization": f"Bearer {KEY}"}}
    chosen = [client._replace(modes=client.modes[:1]) for client in _clients(tools)]
    for name, (command, calls) in servers.items():
        with gateway({name: {"command": command[0], "args": command[1:]}}, folder / name) as origin:
            direct = Target(f"({name} over stdio, direct)", {"command": command, "calls": calls})
            others = (
                Target(f"/servers/{name}/mcp", {"url": f"{origin}/servers/{name}/mcp", "calls": calls, **header}),
                Target("/mcp", {"url": f"{origin}/mcp", "prefix": f"{name}__", "calls": calls, **header}, merged=True),
                Target("wrap", {"command": wrapped(command, folder), "calls": calls}),
            )
            for client in chosen:
                found += _compare(client, client.modes[0], direct, others)
    return found
