"""Writing books anew from what the store knows: in chunks beside the old ones, believed from the last step on."""

import secrets
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fulcrum_adapters.redis.naming import account_key, joined, microseconds, plain
from fulcrum_adapters.redis.request import hold_id, marks
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_adapters.redis.subjects import ENVELOPE_KEPT, is_key
from fulcrum_mcp.core.account import Account, Book, Hold, State
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.books import Past

__all__ = ["rebuild"]

_CHUNK = 1_000
_LASTING = 90 * 86_400_000
_FOREVER = 2**53
_YEAR_2026 = 1_767_225_600_000_000


def rebuild(store: RedisStore, epoch: str, book: Book, past: Past, at: int, *, beginning: bool = False) -> bool:
    """False if the server is in another run, was rebuilt already, or was emptied meanwhile. Raises `Unavailable`."""
    run, believed = store.state()
    if run != epoch or believed:
        return False
    now, keep = microseconds(at), store.config.keep * 1_000
    generation = secrets.token_hex(8)
    commands, chunks = _commands(book, past, now, keep), 0
    while chunk := list(islice(commands, _CHUNK)):
        if not store.rebuild("stage", epoch, generation, chunk, str(keep)):
            return False
        chunks += 1
    if chunks == 0 and not store.rebuild("stage", epoch, generation, [], str(keep)):
        return False
    begins = str(max(now, _YEAR_2026))
    emptied = "0" if beginning else begins
    return store.rebuild("flip", epoch, generation, max(chunks, 1), begins, str(keep // 2), emptied)


def _commands(book: Book, past: Past, now: int, keep: int) -> Iterator[list[Any]]:
    for account in book.accounts.values():
        yield from _account(account, now, keep)
    for hold in book.holds.values():
        yield from _hold(hold, now, keep)
    for tenant, subject, label, last in past.taints:
        name = f"t{joined(tenant, subject)}"
        yield ["ZADD", name, "GT", str(microseconds(last)), plain(label)]
        yield ["PEXPIRE", name, str(ENVELOPE_KEPT)]
    for tenant, subject, tool, count, last in past.calls:
        yield from _tally(joined(tenant, subject), subject, plain(tool), count, microseconds(last))


def _account(account: Account, now: int, keep: int) -> Iterator[list[Any]]:
    owner, budget, bucket, amount, start = account.key
    ends = account.ends // 1_000
    life = max(ends - now, 0) // 1_000 + keep if ends else _LASTING
    name, index = account_key(owner, budget, bucket, amount, start), f"i{joined(owner, budget)}"
    limit = min(max(account.limit, -1), MAX_AMOUNT)
    row = [
        ends,
        limit,
        min(account.committed, MAX_AMOUNT),
        min(account.reserved, MAX_AMOUNT),
        account.notified,
        int(account.warned),
        marks(account.limit, account.thresholds),
    ]
    yield ["SET", name, row, "PX", str(life)]
    yield ["ZADD", index, "GT", str(_forgets(now, life) if ends else _FOREVER), plain(bucket)]
    yield ["PEXPIRE", index, str(_LASTING + life)]
    if not ends:
        yield ["ZADD", "lasting", "0", name, "0", index]
        yield ["PEXPIRE", "lasting", str(_LASTING)]


def _forgets(now: int, life: int) -> int:
    return now // 1_000 + life


def _hold(hold: Hold, now: int, keep: int) -> Iterator[list[Any]]:
    lines: list[Any] = []
    for account, amount in hold.lines:
        lines += (account_key(*account.key), min(amount, MAX_AMOUNT))
    name = hold_id(hold.call, hold.leg)
    expires = min(hold.expires // 1_000, 2**53 - 1)
    is_open = hold.state is State.OPEN
    life = (max(expires - now, 0) // 1_000 if is_open else 0) + keep
    if is_open:
        yield ["ZADD", "open", str(expires), name]
        yield ["SADD", f"w{plain(hold.writer)}", name]
        yield ["PEXPIRE", f"w{plain(hold.writer)}", str(_LASTING)]
        yield ["PEXPIRE", "open", str(_LASTING)]
    row = [int(hold.state), plain(hold.tenant), plain(hold.writer), lines]
    yield ["SET", f"h{name}", row, "PX", str(life)]


def _tally(name: str, subject: str, tool: str, count: int, last: int) -> Iterator[list[Any]]:
    life = str(ENVELOPE_KEPT)
    if not is_key(subject):
        yield ["HINCRBY", f"c{name}", tool, str(count)]
        yield ["PEXPIRE", f"c{name}", life]
        return
    # A slice of its own for each time that the store tells: windows may differ between gateways.
    part = f"r{last}"
    yield ["HINCRBY", f"k{part}:{name}", tool, str(count)]
    yield ["PEXPIRE", f"k{part}:{name}", life]
    yield ["ZADD", f"s{name}", "GT", str(last), part]
    yield ["PEXPIRE", f"s{name}", life]
