"""An installation without spools: what refuses to start, what is denied without NATS, and who comes back too late."""

import asyncio
import signal
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from audit_trails import FINISHED
from client_load import Load
from governed_processes import until
from installation_rig import STREAM, Installation, Replica, all_well, open_installation
from kill_checker import faults
from peers.marking_server import read_notes

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def taken(installation: Installation) -> int:
    """How many writers were taken over."""
    with closing(psycopg.connect(installation.postgres.database_url(installation.database))) as connection:
        row = connection.execute("SELECT count(*) FROM fulcrum.writers WHERE taken_by IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])


async def test_it_refuses_to_start_unless_told_that_nats_writes_at_once(tmp_path: Path) -> None:
    async with open_installation(tmp_path, replicas=0, processors=0, more=STREAM) as installation:
        del installation.environ["FULCRUM_NATS_SYNC_ALWAYS"]
        replica = Replica("refused", tmp_path / "refused", installation.config, installation.environ)
        process = await replica.spawn(replica._command, pipes=False)
        async with asyncio.timeout(30):
            assert await process.wait() != 0
        said = replica.log.read_text()
        assert 'audit.durability = "stream" is refused' in said
        assert "nats.sync_always = true" in said
        assert "Traceback" not in said


@pytest.mark.timeout(180)
async def test_without_nats_calls_are_denied_within_a_second_and_nothing_is_forwarded(tmp_path: Path) -> None:
    async with open_installation(tmp_path, more=STREAM) as installation:
        loads = [Load(replica, seed, installation.stalls) for seed, replica in enumerate(installation.replicas)]
        for load in loads:
            load.start(4)
        await asyncio.gather(*(load.more(40) for load in loads))
        installation.nats.pause()
        await asyncio.gather(*(load.all_anew() for load in loads))  # one's acknowledgement may have been on its way
        seen = len(read_notes(installation.notes))
        refused = sum(len(load.refused) for load in loads)
        await asyncio.gather(*(load.more(60) for load in loads))
        assert read_notes(installation.notes)[seen:] == []
        counts = [(len(load.answered), len(load.refused), load.lost) for load in loads]
        assert sum(len(load.refused) for load in loads) >= refused + 100, f"answered, refused, lost: {counts}"
        installation.nats.resume()
        await installation.serving(60)
        await asyncio.gather(*(load.more(40) for load in loads))
        await asyncio.gather(*(load.stop() for load in loads))
        answered = {text: answer for load in loads for text, answer in load.answered.items()}
        evidence = await all_well(installation, answered, [text for load in loads for text in load.refused])
        assert faults(evidence) == []
        assert max(load.slowest for load in loads) < 1.0
        assert len(read_notes(installation.notes)) > seen


@pytest.mark.timeout(300)
async def test_a_gateway_that_was_stopped_for_too_long_ends_and_tells_no_second_end(tmp_path: Path) -> None:
    async with open_installation(tmp_path, more=STREAM) as installation:
        stopped, other = installation.replicas
        load = Load(stopped, 1)
        load.start(16)
        await load.more(100)
        assert stopped.process is not None
        stopped.process.send_signal(signal.SIGSTOP)
        stopped.running.clear()

        async def finished_by_another() -> bool:
            return await asyncio.to_thread(taken, installation) == 1

        began = time.monotonic()
        await until(finished_by_another, "the stopped one is taken over", 150)
        assert time.monotonic() - began > 50
        answer = await other.call("mark", "meanwhile")
        assert answer is not None
        assert "isError" not in answer["result"]
        stopped.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            assert await stopped.process.wait() != 0
        assert "another one has finished its calls" in stopped.log.read_text()
        await load.stop()
        evidence = await all_well(installation, {**load.answered, "meanwhile": "ok"}, load.refused, 120)
        assert faults(evidence) == []
        ends = [record["data"]["outcome"] for record in evidence.records if record["type"] == FINISHED]
        assert ends.count("outcome_unknown") >= 1
