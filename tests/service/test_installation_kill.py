"""kill -9 of gateways, processors, Postgres, Valkey and NATS under load: nothing is lost, nothing comes twice."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_trails import FINISHED
from client_load import Load
from governed_processes import FULCRUM, Governed, until
from installation_rig import STREAM, Installation, all_well, open_installation
from kill_checker import faults, planted_faults
from servers.process import Server

from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.trail import TrailVerifier

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def restart(process: Governed) -> None:
    """SIGKILL, and a new one in its place."""
    await process.end(signal.SIGKILL)
    await process.start()


async def restart_server(server: Server) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def damage(installation: Installation, loads: Sequence[Load]) -> None:
    """One bit of one of the stream's block files, while NATS is down; its messages are in no store yet."""
    processors = [found.process for found in installation.processors if found.process is not None]
    for processor in processors:
        processor.send_signal(signal.SIGSTOP)  # what is stored leaves the stream, and its blocks with it
    try:
        await asyncio.gather(*(load.more(40) for load in loads))

        def large() -> list[Path]:
            blocks = installation.nats.data.rglob("streams/FULCRUM_AUDIT/msgs/*.blk")
            return [path for path in blocks if path.stat().st_size > 4096]

        async def something() -> bool:  # the couriers may be behind
            return bool(large())

        await until(something, "the stream holds something to damage", 60)
        await asyncio.to_thread(installation.nats.kill)
        block = large()[-1]
        raw = bytearray(block.read_bytes())
        raw[len(raw) * 2 // 3] ^= 0x10
        block.write_bytes(raw)
        await asyncio.to_thread(installation.nats.start)
    finally:
        for processor in processors:
            processor.send_signal(signal.SIGCONT)


def harms(installation: Installation) -> dict[str, Callable[[], Awaitable[None]]]:
    """Every way to kill something."""
    processes: list[Governed] = [*installation.replicas, *installation.processors]
    found: dict[str, Callable[[], Awaitable[None]]] = {}
    for process in processes:
        found[process.name] = lambda process=process: restart(process)  # type: ignore[misc]
    for name, part in installation.parts.items():
        found[name] = lambda part=part: restart_server(part)  # type: ignore[misc]
    return found


async def killed(folder: Path, kills: int, calls: int, capsys: Any, *, streamed: bool = False) -> None:
    """`streamed`: without spools; then a block of the stream must not be damaged: nobody else has what is in it."""
    async with open_installation(
        folder, replicas=2, processors=2, tight=50 + calls // 20, more=STREAM if streamed else ""
    ) as installation:
        chance = random.Random()
        every = harms(installation)
        order = list(every)
        chance.shuffle(order)
        loads = [Load(replica, seed, installation.stalls) for seed, replica in enumerate(installation.replicas)]
        for load in loads:
            load.start(8)
        for number in range(kills):
            await asyncio.gather(*(load.more(calls // kills // 2, 120) for load in loads))
            if number == kills // 2 and not streamed:
                await damage(installation, loads)
            await every[order[number] if number < len(order) else chance.choice(order)]()
        await asyncio.gather(*(load.more(20, 120) for load in loads))
        await asyncio.gather(*(load.stop() for load in loads))
        await installation.serving(60)

        answered = {text: answer for load in loads for text, answer in load.answered.items()}
        refused = [text for load in loads for text in load.refused]
        evidence = await all_well(installation, answered, refused, 240 if streamed else 120)
        assert faults(evidence) == [], f"killed in this order: {order}"
        await chains_verify(installation)
        for replica in installation.replicas:
            assert await replica.end(signal.SIGTERM) == 0, replica.log.read_text()[-2000:]
        ends = [record["data"]["outcome"] for record in evidence.records if record["type"] == FINISHED]
        unknown, lost = ends.count("outcome_unknown"), sum(load.lost for load in loads)
        slowest = max(load.slowest for load in loads)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{kills} kills{'' if streamed else ' and a damaged block'}: "
                f"{len(evidence.seen)} calls seen upstream, "
                f"{len(evidence.records)} records, {unknown} outcome_unknown, {lost} without answer, "
                f"{len(refused)} refused (slowest {slowest:.2f} s), spent {evidence.spent}\n"
            )
        for what, planted in planted_faults(evidence).items():
            assert faults(planted) != [], what


async def chains_verify(installation: Installation) -> None:
    """As `fulcrum audit verify` does; and spool, stream and store agree."""
    keys = installation.keys()

    def verdict() -> str | None:
        verifier = TrailVerifier(keys.key_id, keys.check)
        with installation.reader() as reader:
            for line in export_trail(reader, keys, None, "2026-11-24T12:00:00Z"):
                fault = verifier.feed(line)
                if fault is not None:
                    return str(fault)
        fault = verifier.finish()
        return None if fault is None else str(fault)

    assert await asyncio.to_thread(verdict) is None

    said: list[str] = []

    async def reconciled() -> bool:
        done = [await asyncio.to_thread(reconcile, installation, replica.data) for replica in installation.replicas]
        said[:] = [each.stdout + each.stderr for each in done if each.returncode != 0]
        return not said

    try:
        await until(reconciled, "spool, stream and store agree", 60)
    except AssertionError as exc:
        raise AssertionError("\n".join(said)) from exc


def reconcile(installation: Installation, data: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FULCRUM, "audit", "reconcile", "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=installation.environ,
    )


@pytest.mark.timeout(300)
async def test_no_record_is_lost_whatever_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await killed(tmp_path, 7, 1_400, capsys)


@pytest.mark.timeout(420)
async def test_without_spools_no_record_is_lost_either_and_others_finish_what_the_dead_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await killed(tmp_path, 7, 1_400, capsys, streamed=True)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_no_record_is_lost_over_twenty_thousand_calls_and_forty_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await killed(tmp_path, 42, 20_000, capsys)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_without_spools_no_record_is_lost_over_twenty_thousand_calls_and_forty_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await killed(tmp_path, 42, 20_000, capsys, streamed=True)
