"""Every call is ended once, at what it really cost."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from journal_doubles import MoodyLedger
from live_stream import until

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.history import MemoryHistory
from fulcrum_adapters.memory.policy import MemoryPolicyEngine
from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.core.budget import Amounts, Budget, Match, Reserve, Scope
from fulcrum_mcp.core.call import Call, Context, Principal
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.snapshot import Snapshot
from fulcrum_mcp.gateway.ticket import Judged, Ticket, amounts_of

pytestmark = pytest.mark.anyio

WHO = Principal("acme", "ann", "k1")
LIMITS = {"calls": 100, "usd_micros": 10_000, "bytes": 10_000, "seconds": 1000}
BUDGET = Budget("b1", "acme", "all", Scope("tenant"), LIMITS, thresholds=())


class Ends:
    """Calls admitted at an estimate, and what became of them."""

    def __init__(self, journal: Journal, log: MemoryAuditLog, ledger: MoodyLedger) -> None:
        self.log = log
        self.ledger = ledger
        self.settler = Settler(journal, MemoryHistory(), lambda tenant: tenant.encode())

    def ticket(self, cost: Mapping[str, int], root: Ticket | None = None, leg: int = 0) -> Ticket:
        name = root.call.id if root else f"c{len(self.ledger.applied)}"
        call = Call(name, WHO, "tools/call", "files", "echo", {}, Context(), leg=leg)
        engine = MemoryPolicyEngine({})
        ticket = Ticket(
            call, Snapshot("1", engine, lambda _: (), substitute), Decision("allow", cost=cost), "dec", b"{}"
        )
        ticket.root = root
        ticket.started_ns = time.perf_counter_ns()
        if root is None:
            ticket.amounts = amounts_of(cost)
            ticket.reserved = True
            match = (Match(BUDGET, "acme"),)
            self.ledger.apply([Reserve(call.id, 0, "acme", "memory", match, ticket.amounts, now_ns(), 90)])
        return ticket

    @property
    def ended(self) -> list[bytes]:
        """The records of ends."""
        return [line for line in self.log.lines if b'"dev.fulcrum.tool_call.finished"' in line]

    async def charged(self, ends: int) -> dict[str, int]:
        await until(lambda: len(self.ended) >= ends and not self.ledger.open("memory"), f"{ends} ends")
        assert len(self.ended) == ends
        (usage,) = self.ledger.usage([BUDGET], now_ns())
        assert not any(usage.reserved.values())
        return {amount: cost for amount, cost in usage.committed.items() if cost}


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    log, ledger = MemoryAuditLog(), MoodyLedger()
    journal = Journal(ledger, log)
    journal.start()
    yield Ends(journal, log, ledger)
    await journal.close()


async def test_call_is_ended_once(ends: Ends) -> None:
    ticket = ends.ticket({"usd_micros": 5})
    for outcome in ("ok", "error", "cancelled"):
        ends.settler.finish(ticket, outcome)
    assert await ends.charged(1) == {"calls": 1, "usd_micros": 5}
    assert b'"outcome":"ok"' in ends.ended[0]


async def test_call_that_was_never_sent_costs_nothing(ends: Ends) -> None:
    ends.settler.finish(ends.ticket({"usd_micros": 5, "bytes": 7}), "error", sent=False)
    assert await ends.charged(1) == {}


@pytest.mark.parametrize(
    ("estimate", "actual", "charged"),
    [
        ({"usd_micros": 5}, None, {"calls": 1, "usd_micros": 5, "bytes": 4}),
        ({"usd_micros": 5}, {"usd_micros": 2}, {"calls": 1, "usd_micros": 2, "bytes": 4}),
        ({"usd_micros": 5}, {"usd_micros": 90}, {"calls": 1, "usd_micros": 90, "bytes": 4}),
        ({"bytes": 9}, None, {"calls": 1, "bytes": 9}),
        ({"bytes": 9}, {"bytes": 3}, {"calls": 1, "bytes": 3}),
        ({"calls": 0}, None, {"bytes": 4}),
    ],
)
async def test_charge_is_what_policies_say_of_the_result_else_the_estimate(
    ends: Ends, estimate: dict[str, int], actual: dict[str, int] | None, charged: dict[str, int]
) -> None:
    judged = None if actual is None else Judged(cost=actual)
    ends.settler.finish(ends.ticket(estimate), "ok", result=b"{  }", judged=judged)
    assert await ends.charged(1) == charged


async def test_seconds_are_measured_where_nobody_estimated_them(ends: Ends) -> None:
    ticket = ends.ticket({})
    ticket.started_ns = time.perf_counter_ns() - 2_500_000_000
    ends.settler.finish(ticket, "ok")
    assert await ends.charged(1) == {"calls": 1, "seconds": 2}


async def test_legs_are_recorded_each_and_charged_once_at_the_last(ends: Ends) -> None:
    root = ends.ticket({"usd_micros": 5})
    ends.settler.suspend(root)
    ends.settler.suspend(root)
    second = ends.ticket({}, root, 1)
    ends.settler.suspend(second)
    third = ends.ticket({}, root, 2)
    ends.settler.finish(third, "ok", judged=Judged(cost={"usd_micros": 3}))
    ends.settler.give_up(root)
    assert await ends.charged(3) == {"calls": 1, "usd_micros": 3}


@pytest.mark.parametrize("sent", [True, False])
async def test_last_leg_that_fails_leaves_the_charge_of_the_legs_before(ends: Ends, sent: bool) -> None:
    root = ends.ticket({"usd_micros": 5})
    ends.settler.suspend(root)
    ends.settler.finish(ends.ticket({}, root, 1), "error", sent=sent)
    assert await ends.charged(2) == {"calls": 1, "usd_micros": 5}


async def test_call_that_never_comes_back_is_charged_its_estimate_once(ends: Ends) -> None:
    root = ends.ticket({"usd_micros": 5})
    ends.settler.suspend(root)
    for _ in range(2):
        ends.settler.give_up(root)
    assert await ends.charged(1) == {"calls": 1, "usd_micros": 5}


async def test_estimate_is_never_of_the_wrong_kind() -> None:
    assert amounts_of({}) == Amounts(1)
    assert amounts_of({"calls": 0, "usd_micros": 2, "unknown": 9}) == Amounts(0, 2)
    rest: dict[str, Any] = {"input_tokens": 3, "output_tokens": 4, "bytes": 5, "seconds": 6}
    assert amounts_of(rest) == Amounts(1, 0, 3, 4, 5, 6)
