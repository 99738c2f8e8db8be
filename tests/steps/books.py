"""The books of the ledger against those that the trail tells, added up by the trail's own words."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final

from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.ledger import RedisLedger
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.records import DECIDED, FINISHED
from fulcrum_mcp.ports import ArchivedRecord

__all__ = ["INSTALLATION", "difference", "spent"]

INSTALLATION: Final = "steps"
"""Whose books they are."""

_Account = tuple[str, str, str]


def difference(url: str, records: Sequence[ArchivedRecord], budgets: Sequence[Budget], writers: Iterable[str]) -> str:
    """How the ledger's books differ from the trail's; empty when they do not. Raises `Unavailable`."""
    wanted = spent(records, budgets)
    with closing(RedisStore(RedisConfig(url, timeout=5.0), INSTALLATION)) as store:
        store.state()
        ledger = RedisLedger(store)
        usages = ledger.usage(budgets, now_ns())
        held = [(writer, call) for writer in sorted(writers) for call, _ in ledger.open(writer)]
    said = {(u.budget.name, u.bucket, name): n for u in usages for name, n in u.committed.items() if n}
    reserved = {(u.budget.name, u.bucket, name): n for u in usages for name, n in u.reserved.items() if n}
    found = [f"still open: {held}"] if held else []
    found += [f"still reserved: {reserved}"] if reserved else []
    if said != wanted:
        pairs = {key: (said.get(key, 0), wanted.get(key, 0)) for key in said.keys() | wanted.keys()}
        found.append(f"(ledger, trail): { {key: pair for key, pair in pairs.items() if pair[0] != pair[1]} }")
    return "; ".join(found)


def spent(records: Sequence[ArchivedRecord], budgets: Iterable[Budget]) -> dict[_Account, int]:
    """What the trail says was spent: of each call its charge, and its estimate where nobody said what it cost."""
    known = {budget.id: budget for budget in budgets}
    data = [(record, json.loads(record.line)["data"]) for record in records]
    charged = {
        record.subject: said["charged"] for record, said in data if record.type == FINISHED and "charged" in said
    }
    sums = Counter[_Account]()
    for record, said in data:
        if record.type != DECIDED or "reserved" not in said:
            continue
        cost: dict[str, int] = charged.get(record.subject, said["reserved"])
        for place in said["budgets"]:
            budget = known[place["id"]]
            for name in budget.limits:
                sums[budget.name, place["bucket"], name] += _amount(cost, name)
    return {key: number for key, number in sums.items() if number}


def _amount(cost: dict[str, int], name: str) -> int:
    parts = ("input_tokens", "output_tokens") if name == "tokens" else (name,)
    return sum(cost.get(part, 0) for part in parts)
