"""A quick ledger answers at once on the loop; one across the network on a thread, or its callers are told in time."""

import asyncio
import threading

import pytest

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.reach import Reach

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_quick_ledger_is_asked_at_once_and_here() -> None:
    told: list[object] = []
    Reach(quick=True, patience=1).ask(threading.get_ident, lambda result, fault: told.append((result, fault)))
    assert told == [(threading.get_ident(), None)]


async def test_a_remote_ledger_is_asked_on_a_thread_and_answers_on_the_loop() -> None:
    reach = Reach(quick=False, patience=1)
    told: asyncio.Future[tuple[int | None, int]] = asyncio.get_running_loop().create_future()
    reach.ask(threading.get_ident, lambda result, _: told.set_result((result, threading.get_ident())))
    asked, answered = await asyncio.wait_for(told, 5)
    assert answered == threading.get_ident() != asked
    assert await reach.run(threading.get_ident) != threading.get_ident()
    reach.close()


@pytest.mark.parametrize("quick", [True, False])
async def test_faults_are_told(quick: bool) -> None:
    def fail() -> None:
        raise Unavailable("gone")

    reach = Reach(quick=quick, patience=1)
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    reach.ask(fail, lambda _, fault: told.set_result(fault))
    assert str(await asyncio.wait_for(told, 5)) == "gone"
    with pytest.raises(Unavailable, match="gone"):
        await reach.run(fail)
    reach.close()


async def test_a_remote_ledger_that_hangs_is_not_waited_for() -> None:
    gate = threading.Event()
    reach = Reach(quick=False, patience=0.05)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await reach.run(lambda: gate.wait(10))
    assert caught.value.doubtful
    gate.set()
    reach.close()


async def test_a_quick_ledger_that_is_busy_is_asked_again_for_a_while() -> None:
    left = [Unavailable("locked", busy=True)] * 3

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    reach = Reach(quick=True, patience=1)
    assert await reach.run(work) == "done"
    assert reach.may_wait(Unavailable("locked", busy=True))
    assert not reach.may_wait(Unavailable("broken"))
