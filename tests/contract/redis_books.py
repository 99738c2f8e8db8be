"""Books on a real server for the contract suites, begun long before the suites' times."""

import pytest

from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Past

__all__ = ["REAL", "begin", "open_books"]

SECOND = 1_000_000_000
LONG_AGO = 1_795_521_600 * SECOND - 30 * 86_400 * SECOND

REAL = tuple(pytest.param(name, marks=[pytest.mark.service, pytest.mark.parts]) for name in ("valkey_url", "redis_url"))
"""Fixtures' names, as parameters of suites that run over every adapter."""


def open_books(url: str, *, prefix: str = "fulcrum:", at: int = LONG_AGO, timeout: float = 2.0) -> RedisStore:
    """A store whose books were made at `at` and are empty."""
    store = RedisStore(RedisConfig(url, prefix=prefix, timeout=timeout))
    begin(store, at)
    return store


def begin(store: RedisStore, at: int = LONG_AGO) -> None:
    ledger = RedisLedger(store)
    run, believed = ledger.epoch()
    if not believed:
        assert ledger.rebuild(run, Book(), Past(), at)
