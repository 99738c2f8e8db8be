"""A gateway that was killed: it held a call, had recorded it, and nobody told the end."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from steps.books import INSTALLATION

from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.ledger import RedisLedger
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_mcp.core.budget import Amounts, Budget, Reserve, Reserved
from fulcrum_mcp.core.call import Call, Context, Principal, Tool
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.core.scope import BudgetIndex
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.records import decided_draft
from fulcrum_mcp.gateway.ticket import scopes_of

__all__ = ["die"]

PATIENCE: Final = 5.0
"""Seconds, more than any harm lasts: what it is not told that it holds stands in the books and in no record."""


def die(url: str, data: Path, budgets: Sequence[Budget], ttl: int) -> str:
    """Its name as a writer. Its reservation runs out `ttl` seconds after it was made; there may be none."""
    who = Principal("default", "bot", "k", (), frozenset())
    call = Call(f"call_{new_id()}", who, "tools/call", "marks", "mark", {}, Context(), Tool("mark"))
    matches = tuple(BudgetIndex(tuple(budgets)).matching(scopes_of(call)))
    with Spool.open(data / "spool", SpoolConfig("os")) as spool:
        reserve = Reserve(call.id, 0, "default", spool.writer, matches, Amounts(1, 50), now_ns(), ttl)
        if _held(url, reserve):
            draft = decided_draft(
                call,
                f"dec_{new_id()}",
                Decision("allow"),
                at=reserve.at,
                snapshot="s",
                reserve=reserve,
                held=True,
                arguments_mac="",
                inputs=None,
                duration_us=1,
            )
            spool.append([draft])
        return spool.writer


def _held(url: str, reserve: Reserve) -> bool:
    with closing(RedisStore(RedisConfig(url, timeout=PATIENCE), INSTALLATION)) as store:
        try:
            store.state()
            return isinstance(RedisLedger(store).apply([reserve])[0], Reserved)
        except Unavailable:
            return False
