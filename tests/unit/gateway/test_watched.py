"""What is watched is ended once, by what concerns it, and forgotten when it is over."""

import asyncio

import pytest
from kill_switches import switch

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.core.switch import EVERYBODY, SwitchIndex
from fulcrum_mcp.gateway.denial import Denial
from fulcrum_mcp.gateway.watched import Watchlist, switch_on

pytestmark = pytest.mark.anyio

ANN = Principal("acme", "ann", "k1")
DENIED = Denial("dec_1", "deny", (Reason("", "", "stopped", "it runs wild"),))


def test_switch_concerns_a_principal_or_the_server_that_it_speaks_to() -> None:
    for thrown in (switch(), switch("key", "k1"), switch("tenant", "acme"), switch("tenant", "acme", EVERYBODY)):
        assert switch_on(SwitchIndex([thrown]), ANN, "") is thrown
    server = switch("server", "files")
    assert switch_on(SwitchIndex([server]), ANN, "files") is server
    assert switch_on(SwitchIndex([server]), ANN, "") is None
    assert switch_on(SwitchIndex([server]), ANN, "mail") is None
    assert switch_on(SwitchIndex([switch("tool", "files__echo"), switch(tenant="other")]), ANN, "files") is None
    assert switch_on(SwitchIndex(), ANN, "files") is None


def test_what_was_stopped_is_not_stopped_again() -> None:
    watchlist = Watchlist()
    watched = watchlist.enter(ANN, "files")
    thrown = switch()
    assert watchlist.stopped_by(SwitchIndex()) == []
    assert watchlist.stopped_by(SwitchIndex([thrown])) == [(watched, thrown)]
    assert watchlist.of(ANN) == [watched]
    assert watchlist.of(Principal("acme", "ann", "k1")) == [], "equal is not the same credential"
    watched.stopped = DENIED
    assert watchlist.stopped_by(SwitchIndex([thrown])) == []
    assert watchlist.of(ANN) == []
    watchlist.leave(watched)
    watchlist.leave(watched)
    assert len(watchlist) == 0


async def test_block_ends_early_when_stopped_and_its_task_goes_on() -> None:
    watchlist = Watchlist()
    with watchlist.halting(ANN, "files") as watched:
        watched.stopped = DENIED
        watched.halts[0]()
        await asyncio.sleep(10)
    await asyncio.sleep(0)
    assert len(watchlist) == 0


async def test_block_whose_client_went_is_cancelled() -> None:
    watchlist = Watchlist()

    async def waiting() -> None:
        with watchlist.halting(ANN, "files"):
            await asyncio.sleep(10)

    task = asyncio.ensure_future(waiting())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(watchlist) == 0


async def test_stream_that_took_over_is_watched_until_it_is_left() -> None:
    watchlist = Watchlist()
    with watchlist.halting(ANN, "files") as watched:
        watched.halts = [lambda: None]
    assert len(watchlist) == 1
    watchlist.leave(watched)
    assert len(watchlist) == 0
