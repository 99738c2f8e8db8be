"""Identifiers: UUIDv7 (RFC 9562 section 5.7), sortable by time, with the prefixes people see."""

import os
import time

__all__ = ["new_id", "now_ns"]

now_ns = time.time_ns
"""Nanoseconds since the Unix epoch: the data plane's one clock."""


def new_id() -> str:
    """A UUIDv7 in its usual spelling; 74 bits of it are random."""
    millis = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (millis << 80) | (0x7 << 76) | ((random >> 64 & 0xFFF) << 64) | (0b10 << 62) | (random & 0x3FFFFFFFFFFFFFFF)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
