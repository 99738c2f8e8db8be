"""The ledger's law on a real server: three gateways' worth of connections, and what may happen to them."""

import itertools
import os

from contract.ledger_model import LedgerLaw
from contract.redis_books import open_books
from hypothesis import strategies as st
from hypothesis.stateful import rule

from fulcrum_adapters.redis import RedisLedger
from fulcrum_mcp.ports import BudgetLedger

__all__ = ["RedisLaw", "RedisOverruns"]

_numbers = itertools.count()


class RedisLaw(LedgerLaw):
    """Each example has books of its own on the server at `url`."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        prefix = f"law-{os.getpid()}-{next(_numbers)}:"
        self.books = [open_books(self.url, prefix=prefix) for _ in range(3)]
        self.ledgers = [RedisLedger(books) for books in self.books]
        self.turn = 0

    def ledger(self) -> BudgetLedger:
        self.turn = (self.turn + 1) % 3
        return self.ledgers[self.turn]

    @rule(which=st.integers(0, 2))
    def reconnect(self, which: int) -> None:
        self.books[which].close()

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.books[0].server.command("SCRIPT", "FLUSH")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for books in self.books:
                books.close()


class RedisOverruns(RedisLaw):
    """Actual costs may exceed their estimates."""

    overruns = True
