"""The calls of gateways that died get one end each, whoever dies meanwhile."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from audit_trails import FINISHED
from live_stream import until

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.memory.shared import MemoryRegistry
from fulcrum_mcp.core.budget import Amounts, Budget, Match, Reserve, Scope
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.undertaker import Undertaker
from fulcrum_mcp.ports import OpenCall, StoredPlace

TEN = Budget("b1", "acme", "ten", Scope("tenant"), {"calls": 10}, period="infinite")
MINUTE = 60_000_000_000

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gateway:
    """One that takes over; `stream` is how long the oldest parcel has waited, or why nobody knows."""

    def __init__(self, writer: str, registry: MemoryRegistry, ledger: MemoryLedger) -> None:
        self.registry = registry
        self.log = MemoryAuditLog(writer)
        self.journal = Journal(ledger, self.log)
        self.journal.start()
        self.stream: float | Unavailable | None = None
        self.undertaker = Undertaker(registry, self.journal, self._oldest)

    async def _oldest(self) -> float | None:
        if isinstance(self.stream, Unavailable):
            raise self.stream
        return self.stream

    async def turn(self) -> None:
        self.registry.beat(self.log.writer, now_ns(), streamed=True)
        await self.undertaker.turn()

    def ends(self) -> list[Mapping[str, Any]]:
        records = [json.loads(line) for line in self.log.lines]
        return [record["data"] for record in records if record["type"] == FINISHED]


class Rig:
    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.ledger = MemoryLedger()
        self.one = Gateway("w1", self.registry, self.ledger)
        self.two = Gateway("w2", self.registry, self.ledger)

    def dead(self, writer: str, *calls: str, reserved: bool = False) -> None:
        """A writer that was last heard two minutes ago, and what it left."""
        self.registry.beat(writer, now_ns() - 2 * MINUTE, streamed=True)
        found: list[tuple[StoredPlace, OpenCall]] = []
        for number, call in enumerate(calls, 1):
            data: dict[str, Any] = {"call_id": call, "leg": 0, "tool": "read", "cost": {"calls": 1}}
            if reserved:
                data["reserved"] = {"calls": 1}
            text = json.dumps(data).encode()
            found.append((StoredPlace(f"{writer}.acme", number), OpenCall(call, 0, "acme", text)))
        self.registry.left[writer] = found


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    for gateway in (made.one, made.two):
        await gateway.undertaker.close()
        await gateway.journal.close()


async def has_ends(gateway: Gateway, *calls: str) -> None:
    await until(lambda: len(gateway.ends()) >= len(calls), "every call has its end")
    assert [end["call_id"] for end in gateway.ends()] == list(calls)
    assert {(end["outcome"], end["tool"]) for end in gateway.ends()} == {("outcome_unknown", "read")}


async def test_every_open_call_gets_one_end_however_long_it_takes_to_be_stored(rig: Rig) -> None:
    rig.dead("w0", "a", "b", "c")
    for _ in range(4):
        await rig.one.turn()
    await has_ends(rig.one, "a", "b", "c")
    rig.registry.left["w0"] = rig.registry.left["w0"][1:2]
    await rig.one.turn()
    rig.registry.left["w0"] = []
    await rig.one.turn()
    await has_ends(rig.one, "a", "b", "c")
    rig.dead("w0", "too late: it is done with")
    await rig.one.turn()
    await rig.one.turn()
    await has_ends(rig.one, "a", "b", "c")


async def test_their_reservations_are_committed_at_the_estimate(rig: Rig) -> None:
    match = Match(TEN, "acme")
    rig.ledger.apply([Reserve("a", 0, "acme", "w0", (match,), Amounts(3), now_ns(), 90)])
    rig.dead("w0", "a", reserved=True)
    await rig.one.turn()
    await rig.one.turn()
    await has_ends(rig.one, "a")
    assert rig.ledger.open("w0") == []
    assert rig.ledger.usage([TEN], now_ns())[0].committed["calls"] == 3


async def test_only_one_of_several_finishes_them(rig: Rig) -> None:
    rig.dead("w0", "a")
    for _ in range(3):
        await rig.one.turn()
        await rig.two.turn()
    await has_ends(rig.one, "a")
    assert rig.two.ends() == []


async def test_what_a_taker_told_before_it_died_is_not_told_again(rig: Rig) -> None:
    rig.dead("w0", "a", "b")
    await rig.one.turn()
    await rig.one.turn()
    await has_ends(rig.one, "a", "b")
    rig.registry.beat("w1", now_ns() - 2 * MINUTE, streamed=True)
    rig.registry.left["w0"] = rig.registry.left["w0"][1:]  # the end of `a` was stored, that of `b` was lost with it
    for _ in range(4):
        await rig.two.turn()
    await has_ends(rig.two, "b")


async def test_nobody_is_taken_while_the_stream_may_hold_what_they_wrote(rig: Rig) -> None:
    rig.dead("w0", "a")
    rig.one.stream = 90.0
    for _ in range(3):
        await rig.one.turn()
    assert rig.one.ends() == []
    rig.one.stream = Unavailable("NATS is away")
    with pytest.raises(Unavailable, match="away"):
        await rig.one.turn()
    rig.one.stream = None
    await rig.one.turn()
    assert rig.one.ends() == [], "it has just come back: what was on its way may not have arrived"
    await rig.one.turn()
    await has_ends(rig.one, "a")


async def test_it_goes_on_by_itself_when_something_fails(rig: Rig) -> None:
    rig.dead("w0", "a")
    rig.registry.beat("w1", now_ns(), streamed=True)
    undertaker = Undertaker(rig.registry, rig.one.journal, rig.one._oldest, pause=0.01)
    rig.one.stream = Unavailable("NATS is away")
    undertaker.start()
    rig.one.stream = None
    await has_ends(rig.one, "a")
    await undertaker.close()
    await undertaker.close()
