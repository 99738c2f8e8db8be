"""Identifiers: UUIDv7 (RFC 9562 section 5.7), sortable by time, with the prefixes people see."""

import os
import threading
import time
from typing import Final

__all__ = ["new_id", "now_ns"]

now_ns = time.time_ns
"""Nanoseconds since the Unix epoch: the data plane's one clock."""

_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_POOL: Final = 4096
_TAKE: Final = 10


class _Pool(threading.local):
    """Random bytes fetched from the system many at a time: a system call for each id costs more than the id."""

    def __init__(self) -> None:
        self.bytes = b""
        self.at = _POOL


_pool = _Pool()
os.register_at_fork(after_in_child=lambda: setattr(_pool, "at", _POOL))


def new_id() -> str:
    """A UUIDv7 in its usual spelling; 74 bits of it are random."""
    pool = _pool
    at = pool.at
    if at + _TAKE > _POOL:
        pool.bytes = os.urandom(_POOL)
        at = 0
    pool.at = at + _TAKE
    text = pool.bytes[at : at + _TAKE].hex()
    millis = "%012x" % (time.time_ns() // 1_000_000)
    return f"{millis[:8]}-{millis[8:]}-7{text[:3]}-{_VARIANT[text[3]]}{text[4:7]}-{text[7:19]}"
