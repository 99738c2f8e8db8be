"""A journal over a log and a ledger that a test has in hand."""

from collections.abc import AsyncIterator

import pytest
from journal_doubles import GatedLog, MoodyLedger

from fulcrum_mcp.gateway.journal import Journal

__all__ = ["journal", "ledger", "log"]


@pytest.fixture
def log() -> GatedLog:
    return GatedLog()


@pytest.fixture
def ledger() -> MoodyLedger:
    return MoodyLedger()


@pytest.fixture
async def journal(log: GatedLog, ledger: MoodyLedger) -> AsyncIterator[Journal]:
    opened = Journal(ledger, log)
    opened.start()
    await opened.run(lambda: None)
    yield opened
    log.gate.set()
    await opened.close()
