"""Credentials of those who listen are looked at again: at news, and in time without."""

import asyncio

import pytest
from live_stream import until

from fulcrum_mcp.api.mcp import standing
from fulcrum_mcp.api.mcp.standing import Standing
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.errors import Unauthenticated, Unavailable
from fulcrum_mcp.ports import Credentials

pytestmark = pytest.mark.anyio

ANN, BOB = Principal("acme", "ann", "k1"), Principal("acme", "bob", "k2")
OF_ANN, OF_BOB = Credentials("Bearer ann"), Credentials("Bearer bob")


class Door:
    """A verifier that knows everybody until told otherwise."""

    def __init__(self) -> None:
        self.faults: dict[Credentials, Exception] = {}
        self.asked: list[Credentials] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.ended: list[tuple[Principal, str]] = []

    async def verify(self, credentials: Credentials) -> Principal:
        self.asked.append(credentials)
        await self.gate.wait()
        if credentials in self.faults:
            raise self.faults[credentials]
        return ANN

    def end(self, principal: Principal, why: Reason) -> None:
        self.ended.append((principal, why.code))


async def test_only_who_is_refused_is_ended() -> None:
    door = Door()
    watch = Standing(door, door.end)
    with watch.listening(OF_ANN, ANN), watch.listening(OF_BOB, BOB):
        door.faults = {OF_ANN: Unauthenticated("revoked"), OF_BOB: Unavailable("the store hangs")}
        watch.look_soon()
        await until(lambda: len(door.asked) == 2, "both are asked for")
        assert door.ended == [(ANN, "unauthenticated")]


async def test_fault_at_one_does_not_save_the_others() -> None:
    door = Door()
    watch = Standing(door, door.end)
    with watch.listening(OF_BOB, BOB), watch.listening(OF_ANN, ANN):
        door.faults = {OF_ANN: Unauthenticated("revoked"), OF_BOB: RuntimeError("nobody foresaw this")}
        watch.look_soon()
        await until(lambda: door.ended, "ended")
        assert door.ended == [(ANN, "unauthenticated")]


async def test_news_during_a_look_are_looked_at_too() -> None:
    door = Door()
    watch = Standing(door, door.end)
    with watch.listening(OF_ANN, ANN):
        door.gate.clear()
        watch.look_soon()
        await until(lambda: door.asked, "it looks")
        watch.look_soon()
        door.gate.set()
        await until(lambda: len(door.asked) == 2, "it looks again")


async def test_who_has_gone_is_not_asked_for_and_time_alone_makes_it_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_EVERY", 0.005)
    door = Door()
    watch = Standing(door, door.end)
    with watch.listening(OF_ANN, ANN):
        door.faults = {OF_ANN: Unauthenticated("expired")}
        await until(lambda: door.ended, "an expired credential is found without news")
    count = len(door.asked)
    watch.look_soon()
    await asyncio.sleep(0.02)
    assert len(door.asked) == count
    assert watch._timer is None
