"""A clock that is far off moves nothing for the others, and is named."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract.ledgers import CALLS, apply, balance, commit, reserve
from contract.redis_books import begin

from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore, store
from fulcrum_mcp.core.budget import Reserved
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

LIMIT = 60.0


@pytest.fixture
def books(valkey_url: str) -> Iterator[RedisStore]:
    opened = RedisStore(RedisConfig(valkey_url, timeout=2.0, skew=LIMIT))
    begin(opened, time.time_ns())
    yield opened
    opened.close()


class Clock:
    """This machine's, as the books see it."""

    def __init__(self) -> None:
        self.off = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.off


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], int]:
    """Set the clock off by so many seconds; the time that it shows."""
    clock = Clock()
    monkeypatch.setattr(store, "time", clock)

    def set_off(seconds: float) -> int:
        clock.off = round(seconds * 1e9)
        return clock.time_ns()

    return set_off


@pytest.mark.parametrize(("seconds", "which"), [(90, "ahead of"), (-90, "behind"), (108_000, "ahead of")])
def test_clock_that_is_far_off_is_refused_and_moves_nothing(
    books: RedisStore, off: Callable[[float], Any], seconds: float, which: str
) -> None:
    ledger = RedisLedger(books)
    at = off(seconds)
    with pytest.raises(
        Unavailable, match=rf"clock is {abs(seconds):.0f} s {which}.* within 60 s; set both by NTP"
    ) as said:
        apply(ledger, reserve("a", CALLS, at=at))
    assert not said.value.doubtful
    now = off(0)
    assert balance(ledger, CALLS, at=now)["calls"] == (0, 0)
    assert isinstance(apply(ledger, reserve("b", CALLS, at=now)), Reserved)


@pytest.mark.parametrize("seconds", [-50, 0, 50])
def test_clocks_that_agree_are_served_and_old_operations_too(
    books: RedisStore, off: Callable[[float], int], seconds: float
) -> None:
    ledger = RedisLedger(books)
    at = off(seconds)
    assert isinstance(apply(ledger, reserve("a", CALLS, at=at)), Reserved)
    apply(ledger, commit("a", at=at - 600 * 10**9))  # owed since before an outage
