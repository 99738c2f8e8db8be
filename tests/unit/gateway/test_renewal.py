"""A live writer renews; a ledger that fails is asked again soon, and is known to work again."""

import asyncio

import pytest
from journal_doubles import MoodyLedger
from live_stream import until
from structlog.testing import capture_logs

from fulcrum_mcp.core.budget import Expire, Renew
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway import renewal
from fulcrum_mcp.gateway.complaint import Complaint
from fulcrum_mcp.gateway.reach import Reach
from fulcrum_mcp.gateway.renewal import Renewal

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "EVERY", 0.03)
    monkeypatch.setattr(renewal, "RETRY", 0.01)


def made(ledger: MoodyLedger, worked: list[bool]) -> Renewal:
    return Renewal(ledger, "w1", Reach(quick=True, patience=1.0), lambda: worked.append(True))


async def test_it_renews_and_expires_again_and_again() -> None:
    ledger = MoodyLedger()
    renewing = made(ledger, [])
    renewing.renew()
    await until(lambda: len(ledger.applied) > 2, "renewed again")
    renewing.stop()
    assert all([type(operation) for operation in step] == [Renew, Expire] for step in ledger.applied)
    assert {step[0].writer for step in ledger.applied if isinstance(step[0], Renew)} == {"w1"}


async def test_a_ledger_that_failed_is_known_to_work_again() -> None:
    ledger, worked = MoodyLedger(), list[bool]()
    ledger.broken = Unavailable("down")
    renewing = made(ledger, worked)
    renewing.renew()
    await asyncio.sleep(0.05)
    assert not worked
    ledger.broken = None
    await until(lambda: worked, "it works")
    renewing.stop()


async def test_the_log_says_that_it_failed_and_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, worked = MoodyLedger(), list[bool]()
    ledger.broken = Unavailable("down")
    renewing = made(ledger, worked)
    monkeypatch.setattr(renewing, "_complaint", Complaint(patience=0.0))
    with capture_logs() as logs:
        renewing.renew()
        await until(lambda: logs, "said")
        ledger.broken = None
        await until(lambda: len(worked) > 2, "it works")
        renewing.stop()
    assert [each["event"] for each in logs] == ["reservations not renewed", "reservations renewed again"]


async def test_soon_does_not_wait_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "EVERY", 60.0)
    ledger, worked = MoodyLedger(), list[bool]()
    renewing = made(ledger, worked)
    renewing.renew()
    renewing.soon()
    await until(lambda: len(worked) == 2, "asked again")
    renewing.stop()


async def test_nothing_is_begun_after_the_end() -> None:
    ledger = MoodyLedger()
    renewing = made(ledger, [])
    renewing.renew()
    renewing.stop()
    renewing.soon()
    await asyncio.sleep(0.1)
    assert len(ledger.applied) == 1
