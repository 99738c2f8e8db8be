"""Parts of the embedded gateway fail: calls are denied in time, go nowhere, and are answered again without a restart.

Whatever happened, the trail, the ledger and what the upstream saw agree in the end (`kill_checker`).
"""

import asyncio
import errno
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from embedded_rig import Embedded, elsewhere, open_embedded, processor_of
from gateway_rig import engine_of
from governed_processes import until
from kill_checker import faults
from store_harm import OTHER_LEDGER, locked, moved_away, noise, replaced_by_another_ledger, replaced_by_nothing

from fulcrum_adapters.spool import Spool
from fulcrum_adapters.spool import spool as spool_module
from fulcrum_adapters.sqlite import connect
from fulcrum_adapters.sqlite.ledger import SqliteLedger
from fulcrum_mcp.core.budget import Operation, Outcome, Release
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway import govern as govern_module
from fulcrum_mcp.gateway import journal as journal_module

SECOND = 1_000_000_000
HOUR = 3600 * SECOND

pytestmark = [pytest.mark.service, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with open_embedded(tmp_path) as opened:
        for _ in range(3):
            assert await opened.call() == ""
        yield opened
        await opened.serves_again()
        assert opened.blind == 0
    assert faults(opened.evidence()) == []


async def refused(gateway: Embedded, told: str, *, times: int = 4, within: float = 6.0) -> None:
    """So many calls are denied, each with words that help."""
    for _ in range(times):
        said = await gateway.denied(within)
        assert "(unavailable)" in said
        assert re.search(told, said), said
        assert re.search(r"Retry after \d+ s", said), said
        assert str(gateway.data) not in said, "the model is told where the operator keeps things"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (moved_away, r"deleted or replaced|unable to open|No such file"),
        (replaced_by_nothing, r"deleted or replaced|empty|No such file"),
        (replaced_by_another_ledger, r"deleted or replaced|another|No such file"),
        (noise, r"deleted or replaced|not a database|No such file"),
    ],
)
async def test_a_ledger_that_is_lost_denies_until_it_is_put_back(
    gateway: Embedded, harm: Callable[[Path], AbstractContextManager[None]], told: str
) -> None:
    with harm(gateway.data / "ledger.db"):
        await refused(gateway, told)


async def test_a_locked_ledger_denies_and_serves_when_it_is_free(gateway: Embedded) -> None:
    with locked(gateway.data / "ledger.db"):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            await refused(gateway, "locked", times=1, within=3)
    async with asyncio.timeout(30):
        assert await gateway.call() == ""


async def test_a_ledger_that_may_only_be_read_denies(gateway: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    real = connect.open_wal

    def read_only(path: Path, **options: Any) -> Any:
        connection = real(path, **options)
        connection.execute("PRAGMA query_only = ON")
        return connection

    journal, ledger = gateway.server.plane.journal, ledger_of(gateway)
    with monkeypatch.context() as patch:
        patch.setattr(connect, "open_wal", read_only)
        await journal.run(ledger.close)
        await refused(gateway, "readonly")


async def test_a_ledger_whose_pages_are_damaged_denies_until_it_is_repaired(gateway: Embedded) -> None:
    ledger = gateway.data / "ledger.db"
    await gateway.server.plane.journal.run(ledger_of(gateway).close)  # what it keeps in memory would serve on
    good = ledger.read_bytes()
    ledger.write_bytes(b"x" * len(good))
    await refused(gateway, "not a database")
    ledger.write_bytes(good)


async def test_what_replaced_a_lost_ledger_grants_nothing(tmp_path: Path) -> None:
    tight = '[[budget]]\nname = "tight"\nscope = "tenant"\ncalls = 3\nperiod = "infinite"\n'
    async with open_embedded(tmp_path, more=tight) as gateway:
        assert [await gateway.call() for _ in range(3)] == ["", "", ""]
        assert "0 of 3 calls left" in await gateway.denied()
        with moved_away(gateway.data / "ledger.db"):
            await gateway.get("/api/v1/budgets")  # whoever asks must not make a new one
            await refused(gateway, "ledger", times=2)
            with elsewhere(OTHER_LEDGER, gateway.data / "ledger.db") as other:
                other.communicate()
            await refused(gateway, "ledger", times=2)
        assert "0 of 3 calls left" in await gateway.denied()
        assert gateway.forwarded == 3
    assert faults(gateway.evidence()) == []


def ledger_of(gateway: Embedded) -> SqliteLedger:
    ledger = gateway.server.plane.stores.ledger
    assert isinstance(ledger, SqliteLedger)
    return ledger


def spool_of(gateway: Embedded) -> Spool:
    log = gateway.server.plane.journal._log
    assert isinstance(log, Spool)
    return log


async def test_a_full_disk_under_the_spool_denies(gateway: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    spool = spool_of(gateway)

    def full(descriptor: int, block: bytes, offset: int) -> int:
        if descriptor == spool._file:
            if len(block) > 10:
                return real(descriptor, block[:10], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, block, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        await refused(gateway, "No space left")


async def test_a_disk_that_fails_to_sync_denies(gateway: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_fdatasync", broken)
        await refused(gateway, "Input/output error")


async def test_a_reservation_that_cannot_be_given_back_at_once_is_given_back_later(
    gateway: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log and ledger fail at the same moment: a live writer renews what it holds, so it would be held for ever."""
    ledger = ledger_of(gateway)
    real = ledger.apply
    failed: list[object] = []

    def apply(operations: Sequence[Operation]) -> Sequence[Outcome]:
        if not failed and any(isinstance(operation, Release) for operation in operations):
            failed.append(operations)
            raise Unavailable("the ledger is busy")
        return real(operations)

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ledger, "apply", apply)
    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_fdatasync", broken)
        await refused(gateway, "Input/output error", times=1)
    assert failed


async def test_a_disk_that_hangs_denies_and_what_it_kept_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PATIENCE", 0.5)
    free = threading.Event()
    async with open_embedded(tmp_path) as gateway:
        assert await gateway.call() == ""
        with monkeypatch.context() as patch:
            real = spool_module._fdatasync
            patch.setattr(spool_module, "_fdatasync", lambda file: (free.wait(60), real(file)))
            said = await gateway.denied(3)
            assert "has not answered" in said
            assert "has not answered" in await gateway.denied(3)
            free.set()
            await gateway.serves_again()
        assert gateway.blind == 0
    evidence = gateway.evidence()
    assert faults(evidence) == []
    cancelled = [r for r in evidence.records if r["data"].get("outcome") == "cancelled"]
    assert len(cancelled) == 2, "decided, never sent, and recorded as such"


async def test_a_spool_that_is_removed_denies_and_begins_anew(gateway: Embedded) -> None:
    assert await asyncio.to_thread(processor_of(gateway).drain)
    writer = gateway.server.plane.journal.writer
    shutil.rmtree(gateway.data / "spool")
    await refused(gateway, "removed", times=1)
    await gateway.serves_again()
    assert gateway.server.plane.journal.writer != writer
    assert [folder.name for folder in (gateway.data / "spool").iterdir()] == [gateway.server.plane.journal.writer]


async def test_an_engine_that_panics_denies(gateway: Embedded) -> None:
    """Admission refuses such a policy where it can; so it is put in behind its back."""
    text = (
        "package fulcrum.policies.bad\n\nimport rego.v1\n\n"
        'allow if input.phase == "list"\n\nallow if strings.count(input.arguments.text, "") > 0\n'
    )
    with gateway.judged_by(engine_of(text)):
        for _ in range(3):
            said = await gateway.denied()
            assert "panicked" in said
            assert "policy bad" in said
    assert await gateway.call() == ""


class Failing:
    """An engine that never answers."""

    def __init__(self, info: PolicyInfo, fault: Exception) -> None:
        self.info = info
        self._fault = fault

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        del phase, document
        raise self._fault


async def test_an_engine_that_does_not_answer_denies(gateway: Embedded) -> None:
    info = gateway.server.plane.holder.current.engine.info
    with gateway.judged_by(Failing(info, Unavailable("the engine does not answer"))):
        assert "(unavailable): the engine does not answer" in await gateway.denied()
    assert await gateway.call() == ""


async def test_a_fault_that_nobody_foresaw_denies_and_the_log_knows_it(
    gateway: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []

    class Log:
        def exception(self, _event: str, call: str) -> None:
            logged.append(call)

    monkeypatch.setattr(govern_module, "_log", Log())
    info = gateway.server.plane.holder.current.engine.info
    with gateway.judged_by(Failing(info, RuntimeError("a bug"))):
        said = await gateway.denied()
    assert "(unavailable)" in said
    assert len(logged) == 1
    assert f"the gateway's log knows {logged[0]}" in said
    assert "a bug" not in said
    assert await gateway.call() == ""


class Clock:
    """The time of day, for everybody in this process; it begins in the middle of an hour."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = time.time_ns
        now = real()
        self.ahead = HOUR // 2 - now % HOUR
        for module in list(sys.modules.values()):
            for name in ("now_ns", "time_ns"):
                if vars(module).get(name) is real:
                    monkeypatch.setattr(module, name, lambda: real() + self.ahead)

    def jump(self, seconds: int) -> None:
        self.ahead += seconds * SECOND


async def test_a_clock_that_jumps_reopens_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hourly = '[[budget]]\nname = "hourly"\nscope = "tenant"\ncalls = 3\nperiod = "hour"\n'
    async with open_embedded(tmp_path, more=hourly) as gateway:

        async def spend() -> int:
            """Calls answered until the budget denies."""
            for number in range(10):
                said = await gateway.call()
                if said:
                    assert "0 of 3 calls left" in said
                    return number
            return 10

        assert await spend() == 3
        clock.jump(-3600)
        assert await spend() == 3, "an hour of its own"
        clock.jump(3600)
        assert await spend() == 0, "spent before"
        clock.jump(86_400)
        assert await spend() == 3
        clock.jump(-86_400)
        assert await spend() == 0
        assert gateway.forwarded == 9
        assert gateway.blind == 0
    assert faults(replace(gateway.evidence(), spent={})) == []


async def test_a_call_under_way_when_the_clock_jumps_is_charged_once(
    gateway: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    for seconds in (86_400, -90_000, 3_600):
        under_way = asyncio.create_task(gateway.call())
        before = gateway.forwarded

        async def seen(before: int = before) -> bool:
            return gateway.forwarded > before

        await until(seen, "the upstream has the call")
        clock.jump(seconds)
        gateway.server.plane.journal._renewal.renew()
        assert await under_way == ""
        assert await gateway.call() == ""
