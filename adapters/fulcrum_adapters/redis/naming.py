"""How keys are made of names that other people choose: no two sets of names make one key."""

from fulcrum_mcp.core.account import AccountKey

__all__ = ["account_key", "account_of", "joined", "microseconds", "plain"]

MOST_TIME = 2**52
"""Microseconds until the year 2112."""


def plain(name: str) -> str:
    """The name, as UTF-8 can hold it."""
    if name.isascii():
        return name
    return name.encode("utf-8", "backslashreplace").decode()


def joined(*names: str) -> str:
    """Each with its length before it (netstrings without the comma)."""
    parts: list[str] = []
    for name in names:
        text = plain(name)
        parts.append(f"{len(text) if text.isascii() else len(text.encode())}:{text}")
    return "".join(parts)


def account_key(owner: str, budget: str, bucket: str, amount: str, start: int) -> str:
    """The key of one amount in one bucket; the window's begin (ns) is text in it, so it needs no exact number."""
    return f"a{joined(owner, budget, bucket, amount, str(start))}"


def account_of(key: str) -> AccountKey:
    """What `account_key` was made of."""
    rest, names = key[1:].encode(), list[str]()
    while rest:
        size, _, rest = rest.partition(b":")
        names.append(rest[: int(size)].decode())
        rest = rest[int(size) :]
    owner, budget, bucket, amount, start = names
    return owner, budget, bucket, amount, int(start)


def microseconds(at: int) -> int:
    """Nanoseconds in microseconds, rounded down, within what a script counts exactly."""
    return min(max(at // 1_000, 0), MOST_TIME)
