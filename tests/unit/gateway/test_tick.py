"""What a tick carries: everybody who waits is told, and an end that cannot be recorded stops no other."""

import asyncio

import pytest

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Outcome
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.tick import Admission, Settlement, ends_of, wake

pytestmark = pytest.mark.anyio


def draft() -> RecordDraft:
    return RecordDraft("r1", "acme", "t", "s", 1, b"{}")


def fails() -> RecordDraft:
    raise RuntimeError("no key")


async def test_who_waits_is_told_and_who_went_is_abandoned() -> None:
    loop = asyncio.get_running_loop()
    abandoned: list[Outcome | None] = []
    waiting, gone, denied = (Admission(None, lambda _: draft(), abandoned.append, loop.create_future()) for _ in "123")
    gone.future.cancel()
    denied.fault = RuntimeError("full")
    wake([waiting, gone, denied])
    assert waiting.future.result() is None
    assert abandoned == [None]
    with pytest.raises(Unavailable, match="journal: full"):
        denied.future.result()


def test_an_end_that_cannot_be_made_stops_no_other() -> None:
    ends = [Settlement(None, fails), Settlement(None, None), Settlement(None, draft)]
    assert list(ends_of(ends)) == [draft()]
