"""The play itself: stage, agent, trail; every scene judged against what was announced."""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from fulcrum_mcp.core.checkpoint import CHECKPOINT
from fulcrum_mcp.demo import servers
from fulcrum_mcp.demo.gateway import Gateway, running
from fulcrum_mcp.demo.screen import Screen, record_line, shown_call
from fulcrum_mcp.demo.story import MASKS, Answer, Verdict, gist, judge, listed, steps
from fulcrum_mcp.demo.trail import forge
from fulcrum_mcp.errors import Unavailable

__all__ = ["play"]

_RECORDS_SECONDS = 25


class _Play:
    """One performance; `faults` is what did not go as announced."""

    def __init__(self, gateway: Gateway, folder: Path, repository: Path, screen: Screen, pause: float) -> None:
        self._gateway = gateway
        self._folder = folder
        self._steps = steps(str(repository))
        self._screen = screen
        self._pause = pause
        self.faults: list[str] = []
        self.records: Sequence[dict[str, Any]] = ()

    def perform(self) -> None:
        """All scenes, in order."""
        self._screen.begin("Fulcrum starts, with two servers behind it")
        key = self._gateway.key("ada", "reader")
        try:
            asyncio.run(self._agent(key))
        except ExceptionGroup as group:
            fault = _leaf(group)
            raise Unavailable(
                f"the agent lost the gateway ({type(fault).__name__}: {fault}); the gateway's last words:\n"
                f"{self._gateway.last_words()}"
            ) from group
        self._trail()

    async def _agent(self, key: str) -> None:
        # The SDK takes a second to import: after the gateway has been started, not before.
        from fulcrum_mcp.demo.agent import connected  # noqa: PLC0415

        async with connected(f"{self._gateway.address}/mcp", key) as agent:
            self._screen.begin("agent → what tools are there?")
            names = await agent.tools()
            fault = listed(names)
            note = fault or f"{len(names)} tools; those that write are hidden from a reader, all but git_commit"
            self._done("agent → tools/list", "unexpected" if fault else "listed", note, fault)
            for step in self._steps:
                await asyncio.sleep(self._pause)
                what = f"agent → {shown_call(step)}"
                self._screen.begin(what)
                answer = await agent.call(step)
                verdict = judge(step, answer)
                fault = None if verdict == step.want else f"{step.tool}: {step.want} was announced, {verdict} came"
                self._done(what, verdict, _note(verdict, answer), fault, agent.overhead)

    def _trail(self) -> None:
        trail, forged = self._folder / "trail.jsonl", self._folder / "forged.jsonl"
        self._screen.begin("audit   waiting for the next signed checkpoint, one every 10 s")
        records = self.records = self._exported(trail)
        decided = sum(1 for record in records if str(record.get("type", "")).endswith("tool_call.decided"))
        fault = None if decided == len(self._steps) else f"{len(self._steps)} calls, {decided} decided records"
        note = f"{len(records)} records: every decision before its call, every outcome after"
        self._done(f"audit   export {trail.name}", "unexpected" if fault else "recorded", fault or note, fault)
        code, words = self._verify(trail)
        fault = None if code == 0 else f"verification of the trail ended with {code}"
        self._done(f"audit   verify {trail.name}", "unexpected" if fault else "whole", words, fault)
        what = forge(trail, forged)
        code, words = self._verify(forged)
        fault = None if code == 1 else f"verification of the forged copy ended with {code}"
        self._done(f"audit   verify {forged.name}", "unexpected" if fault else "found", f"{what} → {words}", fault)

    def _done(self, what: str, verdict: str, note: str, fault: str | None, milliseconds: float | None = None) -> None:
        self._screen.end(what, verdict, note, milliseconds)
        if fault:
            self.faults.append(fault)

    def _exported(self, trail: Path) -> Sequence[dict[str, Any]]:
        """Export until every call that was forwarded has its outcome and a checkpoint: both follow the answers."""
        forwarded = sum(1 for step in self._steps if step.want in {"allowed", "redacted"})
        deadline = time.monotonic() + _RECORDS_SECONDS
        records: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            done = self._gateway.command("audit", "export", "-o", str(trail), "--data", str(self._gateway.data))
            if done.returncode == 0:
                lines = [json.loads(line) for line in trail.read_text().splitlines()]
                records = [line for line in lines if "seq" in line and "type" in line]
                finished = sum(1 for record in records if str(record["type"]).endswith(".finished"))
                if finished >= forwarded and _covered(lines, records):
                    return records
            time.sleep(0.2)
        self.faults.append(f"{_RECORDS_SECONDS} s after the last answer the trail lacks outcomes or a checkpoint")
        return records

    def _verify(self, trail: Path) -> tuple[int, str]:
        public_key = self._gateway.data / "keys" / "audit.pub"
        done = self._gateway.command("audit", "verify", str(trail), "--public-key", str(public_key))
        return done.returncode, " ".join((done.stdout or done.stderr).split())


def _leaf(group: BaseException) -> BaseException:
    """The first fault in nested groups."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _covered(lines: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> bool:
    """True when a signed checkpoint of the export covers every record in it."""
    return any(line.get("records") == len(records) for line in lines if line.get("type") == CHECKPOINT)


def _note(verdict: Verdict, answer: Answer) -> str:
    reasons = answer.decision.get("reasons", [])
    if reasons:
        return "; ".join(
            f"{reason['policy']}: {reason['message']}" if reason.get("policy") else str(reason.get("message"))
            for reason in reasons
        )
    if verdict == "redacted":
        masked = [line.strip() for line in answer.text.splitlines() if any(mark in line for mark in MASKS)]
        return f"{len(masked)} lines masked, such as {masked[0]!r}"
    return gist(answer.text)


def play(console: Console, *, leave: bool) -> int:
    """Perform; answers the exit code. Without `leave` the gateway stays up on a terminal until Ctrl-C.

    Raises `Unavailable` when something that is needed is not here or breaks off.
    """
    signal.signal(signal.SIGTERM, _ended)
    stay, kept = console.is_terminal and not leave, False
    console.print("[bold]Fulcrum[/bold]: an agent, a gateway, and two MCP servers from PyPI (time and git).")
    folder = Path(tempfile.mkdtemp(prefix="fulcrum-demo-"))
    try:
        servers.fetch()
        repository = servers.repository(folder / "repo")
        with running(folder, repository) as gateway:
            with Screen(console) as screen:
                performance = _Play(gateway, folder, repository, screen, 0.4 if stay else 0.0)
                performance.perform()
            for record in performance.records:
                console.print(record_line(record), style="dim", highlight=False, markup=False)
            _epilogue(console, gateway, performance.faults, stay=stay)
            if stay:
                kept = True
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
        return 1 if performance.faults else 0
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _ended(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def _epilogue(console: Console, gateway: Gateway, faults: Sequence[str], *, stay: bool) -> None:
    for fault in faults:
        console.print(f"not as announced: {fault}", style="magenta", highlight=False, markup=False)
    at = f"is at {gateway.address}/mcp until Ctrl-C" if stay else "has stopped; `fulcrum demo` on a terminal keeps it"
    data = f"lies in {gateway.data}: fulcrum audit query --data {gateway.data}" if stay else "went with it"
    lines = (
        ("The gateway", at),
        ("Its data", data),
        ("Your servers", "fulcrum up --config ~/.mcp.json   or, for a single one, fulcrum wrap -- COMMAND ARGS..."),
    )
    for what, words in lines:
        console.print(f"{what:13} {words}", highlight=False, markup=False, soft_wrap=True)
