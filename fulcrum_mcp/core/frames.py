"""Frames, in which records lie in a spool and travel in a stream: length, CRC-32 (seeded with the kind), kind, payload.

A frame that is not whole is either the torn end of a write or damage; only what follows it tells which.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from zlib import crc32

__all__ = ["HEADER", "INPUTS", "MAX_PAYLOAD", "RECORD", "SNAPSHOT", "first", "frame", "resync", "split"]

HEADER = struct.Struct("<IIB")
MAX_PAYLOAD = 64 << 20

RECORD = ord("R")
"""A record's line."""
INPUTS = ord("I")
"""The id of the record before it, a newline, its call inputs."""
SNAPSHOT = ord("H")
"""The heads of all chains and the open calls at this point; every segment begins with one."""

_KINDS = frozenset((RECORD, INPUTS, SNAPSHOT))
_STARTS = (b'R{"specversion":"1.0"', b'H{"writer":')


def frame(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(payload), crc32(payload, kind), kind) + payload


def first(buffer: bytes, at: int = 0) -> tuple[int, bytes] | None:
    """The frame at one place, or None when none is whole there."""
    if at + HEADER.size > len(buffer):
        return None
    length, check, kind = HEADER.unpack_from(buffer, at)
    payload = buffer[at + HEADER.size : at + HEADER.size + length]
    if kind not in _KINDS or len(payload) != length or crc32(payload, kind) != check:
        return None
    return kind, payload


def split(buffer: bytes, at: int = 0) -> tuple[list[tuple[int, bytes]], int, bool]:
    """All whole frames from `at`, where they end, and whether what follows is a bad frame and not just a short one."""
    found: list[tuple[int, bytes]] = []
    add = found.append
    end = len(buffer)
    unpack = HEADER.unpack_from
    head = HEADER.size
    while at + head <= end:
        length, check, kind = unpack(buffer, at)
        if kind not in _KINDS or length > MAX_PAYLOAD:
            return found, at, True
        stop = at + head + length
        if stop > end:
            return found, at, False
        payload = buffer[at + head : stop]
        if crc32(payload, kind) != check:
            return found, at, True
        add((kind, payload))
        at = stop
    return found, at, False


def resync(buffer: bytes, at: int, tries: int | None = None) -> int | None:
    """Where the next whole frame begins, after a bad one at `at`; None also after so many places that look like one."""
    for place in islice(_candidates(buffer, at + 1), tries):
        if first(buffer, place):
            return place
    return None


def _candidates(buffer: bytes, at: int) -> Iterator[int]:
    """Places that look like the beginning of a record or a snapshot, ascending."""
    nexts = [buffer.find(start, at + HEADER.size - 1) for start in _STARTS]
    while any(place >= 0 for place in nexts):
        which = min((place, index) for index, place in enumerate(nexts) if place >= 0)[1]
        place = nexts[which]
        nexts[which] = buffer.find(_STARTS[which], place + 1)
        yield place - HEADER.size + 1
