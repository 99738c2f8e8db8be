"""Who waits longer than the patience is denied, and nobody else."""

import asyncio

import pytest
from live_stream import until

from fulcrum_mcp.core.budget import Outcome
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.overdue import Overdue, Side

pytestmark = pytest.mark.anyio


def waiting() -> "asyncio.Future[Outcome | None]":
    return asyncio.get_running_loop().create_future()


async def test_who_waits_too_long_is_denied_and_who_has_been_answered_is_not() -> None:
    late: list[tuple[Side, str]] = []
    overdue = Overdue(0.05, "look at the disk", lambda side, why: late.append((side, why)))
    answered, hanging, other = waiting(), waiting(), waiting()
    overdue.wait(answered, "ledger")
    overdue.wait(hanging, "log")
    overdue.wait(other, "ledger")
    answered.set_result(None)
    overdue.look()
    await until(other.done, "the last one is denied")
    with pytest.raises(Unavailable, match=r"has not answered for 0\.05 s; look at the disk"):
        hanging.result()
    assert answered.result() is None
    assert [side for side, _ in late] == ["log", "ledger"]
    overdue.stop()


async def test_who_came_later_waits_on() -> None:
    overdue = Overdue(5.0, "", lambda *_: None)
    future = waiting()
    overdue.wait(future, "ledger")
    overdue.look()
    assert not future.done()
    overdue.stop()


async def test_nobody_is_denied_after_the_end() -> None:
    overdue = Overdue(0.02, "", lambda *_: None)
    overdue.look()
    overdue.stop()
    future = waiting()
    overdue.wait(future, "ledger")
    await asyncio.sleep(0.1)
    assert not future.done()
