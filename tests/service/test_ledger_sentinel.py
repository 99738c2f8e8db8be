"""Sentinels know the primary; another primary has other books, which are not believed before they are rebuilt."""

import time
from pathlib import Path

import pytest
from contract.ledgers import CALLS, reserve
from servers.valkey import Sentinel, ValkeyServer

from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Past
from fulcrum_mcp.core.budget import Reserved
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

SECOND = 1_000_000_000


def epoch(ledger: RedisLedger, unlike: str = "") -> str:
    """The run that the sentinel leads to, as soon as it is another one."""
    deadline = time.monotonic() + 90
    while True:
        try:
            run, believed = ledger.epoch()
            if run != unlike:
                assert not believed
                return run
        except Unavailable:
            pass
        assert time.monotonic() < deadline, "the replica never became the primary"
        time.sleep(0.05)


def test_ledger_follows_the_primary_and_its_books_are_made_anew(tmp_path: Path) -> None:
    with (
        ValkeyServer(tmp_path / "one", password="hunter2") as one,
        ValkeyServer(tmp_path / "two", password="hunter2", replica_of=one),
        Sentinel(tmp_path / "sentinel", one) as sentinel,
    ):
        url = sentinel.url.replace("redis+sentinel://", "redis+sentinel://:hunter2@")
        store = RedisStore(RedisConfig(url, timeout=5.0))
        ledger = RedisLedger(store)
        first, at = epoch(ledger), time.time_ns()
        assert ledger.rebuild(first, Book(), Past(), at - 10 * SECOND)
        assert isinstance(ledger.apply([reserve("a", CALLS, at=at)])[0], Reserved)
        one.kill()
        with pytest.raises(Unavailable) as told:
            ledger.apply([reserve("b", CALLS, at=at)])
        assert "hunter2" not in str(told.value)
        second = epoch(ledger, first)
        with pytest.raises(Unavailable, match="being rebuilt"):
            ledger.apply([reserve("c", CALLS, at=at)])
        assert ledger.rebuild(second, Book(), Past(), at - 10 * SECOND)
        assert isinstance(ledger.apply([reserve("d", CALLS, at=at)])[0], Reserved)
        store.close()
