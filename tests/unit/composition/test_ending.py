"""A gateway ends in time whichever of its parts hangs, and all the others have ended."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from fulcrum_mcp.composition import ending as module
from fulcrum_mcp.composition.ending import GRACE, LAST, SPANS, Ending, Stage
from fulcrum_mcp.composition.gateway import DataPlane
from fulcrum_mcp.composition.server import Server

pytestmark = pytest.mark.anyio

ORDER: tuple[Stage, ...] = (
    "telemetry", "following", "upstreams", "journal", "stores", "companions", "control", "backing",
)  # fmt: skip
"""What `Server.close` ends; requests and gRPC come before."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def held() -> AsyncIterator[threading.Event]:
    """What blocks a thread until the test is over; async, since the loop's end waits for its threads."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SPANS:
        monkeypatch.setitem(SPANS, name, 0.2)


class Site:
    """A server whose parts note that they have ended; those that are said to hang never do."""

    def __init__(self, held: threading.Event, *hang: str) -> None:
        self.ended: list[str] = []
        self._held = held
        self._hang = hang
        plane, self.server = object.__new__(DataPlane), object.__new__(Server)
        plane.follower, plane.journal = self.part("following"), self.part("journal")
        plane.upstreams = [self.part("upstreams"), self.part("another upstream")]
        plane.stores, plane._task = self.part("stores", blocks=True), None
        self.server.plane, self.server.telemetry = plane, self.part("telemetry")
        self.server.companions = [self.part("companions"), self.part("another companion")]
        self.server.control, self.server.backing = self.part("control", blocks=True), self.part("backing", blocks=True)

    def part(self, name: str, *, blocks: bool = False) -> Any:
        hangs = name in self._hang

        def blocking() -> None:
            if hangs:
                assert self._held.wait(20)
            self.ended.append(name)

        async def waiting() -> None:
            if hangs:
                await asyncio.Event().wait()
            self.ended.append(name)

        return Part(blocking if blocks else waiting)


class Part:
    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close


def test_all_spans_together_are_less_than_a_supervisor_waits() -> None:
    assert set(SPANS) == set(get_args(Stage))
    assert sum(SPANS.values()) + len(SPANS) * module._LEAVING < LAST - 1
    assert LAST < GRACE - 1


async def test_all_parts_end_in_their_order(held: threading.Event) -> None:
    site = Site(held)
    await site.server.close()
    named = [name for name in site.ended if not name.startswith("another")]
    assert named == list(ORDER)
    assert len(site.ended) == len(ORDER) + 2


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ORDER)
async def test_a_part_that_hangs_is_left_behind_and_named_and_all_others_end(
    name: Stage, held: threading.Event
) -> None:
    site, ending = Site(held, name), Ending()
    began = time.monotonic()
    with capture_logs() as logs:
        await site.server.close(ending)
    assert time.monotonic() - began < 20
    assert ending.late == [name]
    assert [entry["part"] for entry in logs] == [name]
    assert set(ORDER) - set(site.ended) == {name}
    assert {"another upstream", "another companion"} <= set(site.ended)


@pytest.mark.usefixtures("short")
async def test_all_parts_hang_and_it_ends_all_the_same(held: threading.Event) -> None:
    site, ending = Site(held, *ORDER), Ending()
    began = time.monotonic()
    await site.server.close(ending)
    assert ending.late == list(ORDER)
    assert time.monotonic() - began < sum(SPANS.values()) + 20


@pytest.mark.usefixtures("short")
async def test_what_does_not_hear_that_it_is_cancelled_holds_nobody_up() -> None:
    gate = asyncio.Event()

    async def deaf() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    ending = Ending()
    async with asyncio.timeout(20):
        await ending.stage("requests", deaf)
    assert ending.late == ["requests"]
    gate.set()


async def test_what_fails_is_raised_at_the_end_and_the_first_of_it() -> None:
    async def fail(what: str) -> None:
        raise RuntimeError(what)

    def at_once() -> Any:
        raise RuntimeError("third")

    ending = Ending()
    await ending.stage("journal", lambda: fail("first"))
    await ending.stage("stores", lambda: fail("second"))
    await ending.stage("control", at_once)
    with pytest.raises(RuntimeError, match="first"):
        ending.finish()


_STUCK = """
import threading, time
from fulcrum_mcp.composition import worker as module
from fulcrum_mcp.composition.worker import Worker
from fulcrum_mcp.gateway.seat import Seat
module.LAST = 0.3
worker = Worker(Seat(1, 1), [], None, None, False, _channel=None, _trace=0)
worker.end_at_last()
worker.end_at_last()
assert sum(thread.name == "fulcrum-end" for thread in threading.enumerate()) == 1
if {stuck}:
    threading.Thread(target=time.sleep, args=(600,)).start()
"""


@pytest.mark.parametrize(("stuck", "code"), [(True, 1), (False, 0)])
def test_a_worker_ends_as_it_is_when_something_holds_up_even_its_exit(*, stuck: bool, code: int) -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _STUCK.format(stuck=stuck)], timeout=90, check=False)
    assert done.returncode == code
    assert time.monotonic() - began < 80
