"""A tick's durable step: told on the loop, a fault with it, and finished before the end."""

import asyncio
import threading

import pytest
from journal_calls import draft
from journal_doubles import DistantGatedLog, GatedLog
from live_stream import until

from fulcrum_mcp.gateway.appending import Appending
from fulcrum_mcp.gateway.tick import Tick

pytestmark = pytest.mark.anyio


class Heard(list[tuple[Tick, Exception | None]]):
    """What was told, and on which threads."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def told(self, tick: Tick, fault: Exception | None) -> None:
        self.threads.add(threading.current_thread().name)
        self.append((tick, fault))


def tick(log: GatedLog, subject: str) -> Tick:
    return Tick([], [], log.prepare([draft(subject)]))


@pytest.mark.parametrize("kind", [GatedLog, DistantGatedLog])
async def test_how_a_step_ended_is_told_on_the_loop(kind: type[GatedLog]) -> None:
    log, heard = kind(), Heard()
    appending = Appending(log, heard.told)
    appending.start()
    good = tick(log, "good")
    appending.append(good)
    await until(lambda: len(heard) == 1, "told")
    log.broken = "disk full"
    appending.append(tick(log, "bad"))
    await until(lambda: len(heard) == 2, "told")
    assert heard[0] == (good, None)
    assert "disk full" in str(heard[1][1])
    assert heard.threads == {threading.current_thread().name}
    await appending.stop(5)
    assert not appending.runs


async def test_what_was_begun_is_finished_before_the_end() -> None:
    log, heard = GatedLog(), Heard()
    appending = Appending(log, heard.told)
    appending.start()
    log.gate.clear()
    appending.append(tick(log, "last"))
    stopping = asyncio.create_task(appending.stop(5))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    log.gate.set()
    await stopping
    await until(lambda: len(heard) == 1, "told")


async def test_a_log_that_hangs_is_left_behind() -> None:
    log = GatedLog()
    appending = Appending(log, Heard().told)
    appending.start()
    log.gate.clear()
    appending.append(tick(log, "hangs"))
    await appending.stop(0.05)
    assert appending.runs
    log.gate.set()
