"""A large set of policies that is published under load: calls go on beside its compilation, no worker is ended."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stalls import Stalls
from worker_processes import Holding, Workers

from fulcrum_mcp.composition.repositories import sqlite_repositories
from fulcrum_mcp.core.policy import PolicyModule, PolicySource

pytestmark = [pytest.mark.service, pytest.mark.anyio]

CLIENTS = 4
MODULES, RULES = 30, 200
QUIET = 4.0
"""Seconds of the same load without a publication."""
SECOND = 1.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def large() -> PolicySource:
    """Half a megabyte of Rego, whose compilation takes a second and a half of processor time."""
    rule = 'deny contains "r{0}" if {{ input.phase == "call"; input.arguments.text == "q{0}" }}\n'
    rules = "".join(rule.format(number) for number in range(RULES))
    modules = [
        PolicyModule(f"m{each}.rego", f"package fulcrum.policies.m{each}\nimport rego.v1\nallow := true\n{rules}")
        for each in range(MODULES)
    ]
    source = PolicySource(tuple(modules), {}, "large")
    assert sum(len(module.source) for module in modules) > 450_000
    return source


class Clients:
    """Each sends its next call when the last one was answered; `slowest` since it was last set to 0, without stalls."""

    def __init__(self, workers: Workers, stalls: Stalls) -> None:
        self._workers = workers
        self._stalls = stalls
        self._over = asyncio.Event()
        self.slowest = 0.0
        self.lost = self.calls = 0

    async def run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            answer = await self._workers.call("mark", "text")
            ended = time.monotonic()
            if ended - began > self.slowest:
                self.slowest = max(self.slowest, self._stalls.own(began, ended))
            self.calls += 1
            self.lost += answer is None or answer["result"].get("isError", False)

    def stop(self) -> None:
        self._over.set()


async def denies(workers: Workers) -> bool:
    """Whether the large set judges."""
    answer = await workers.call("mark", "q7")
    assert answer is not None
    return bool(answer["result"].get("isError", False))


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    async with Holding(tmp_path / "notes") as upstream:
        made = Workers(tmp_path, upstream.url, 1)
        at = made._command.index("--policies")
        del made._command[at : at + 2]  # what is published counts only without a folder
        try:
            await made.start()
            yield made
        finally:
            await made.close()


async def test_calls_go_on_while_a_large_set_is_compiled(workers: Workers, tmp_path: Path) -> None:
    before = workers.pids()
    with Stalls(lambda: [os.getpid(), *before.values()], tmp_path) as stalls:
        await goes_on(workers, Clients(workers, stalls))
    assert workers.pids() == before, workers.log.read_text()


async def goes_on(workers: Workers, clients: Clients) -> None:
    """A call waits no second longer while it is compiled, and none is lost."""
    stores = sqlite_repositories(workers.data)
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(clients.run())
        try:
            began = time.monotonic()
            while time.monotonic() - began < QUIET:
                assert not await denies(workers)
            quiet, clients.slowest = clients.slowest, 0.0
            began = time.monotonic()
            stores.policies.put(large(), "ann", time.time_ns())
            while not await denies(workers):
                assert time.monotonic() - began < 60, "the new policies never hold"
            busy = clients.slowest
        finally:
            stores.close()
            clients.stop()
    assert clients.lost == 0, workers.log.read_text()
    assert clients.calls > 100
    assert busy < quiet + SECOND, f"slowest call: {quiet:.2f} s without, {busy:.2f} s with the publication"
