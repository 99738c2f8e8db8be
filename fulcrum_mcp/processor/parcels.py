"""Takes a parcel apart: its records, their inputs, and what is wrong with the rest, of which nothing is dropped."""

from typing import NamedTuple

from fulcrum_mcp.core.frames import INPUTS, RECORD, resync, split
from fulcrum_mcp.ports import ArchivedRecord, DeadLetter
from fulcrum_mcp.processor.archived import archived

__all__ = ["Entry", "Inputs", "unpack"]

_TRIES = 8
"""Damaged places in one body that are looked beyond, and places that are looked at for each: hostile ones are many."""

Inputs = tuple[str, str, int, bytes]
"""(record id, tenant, time in us, text), as `Archive.store` takes them."""


class Entry(NamedTuple):
    """A record with the inputs that belong to it."""

    record: ArchivedRecord
    inputs: tuple[Inputs, ...] = ()


def unpack(subject: str, tenant: str | None, body: bytes, now: int) -> tuple[list[Entry], list[DeadLetter]]:
    """What a body holds, in its order; `tenant` is whose parcels come under `subject`, `now` in us.

    A body that is damaged is a dead letter as a whole, and so is what stands in it and does not belong there; the
    records beside it are good all the same, since each is under its own hash.
    """
    entries: list[Entry] = []
    letters: list[DeadLetter] = []
    if tenant is None:
        return entries, [DeadLetter(subject, "its subject is none of ours", body)]
    damaged = 0
    at = 0
    while True:
        frames, at, _ = split(body, at)
        for kind, payload in frames:
            what = _take(kind, payload, tenant, now, entries)
            if what is not None:
                letters.append(DeadLetter(subject, what, payload))
        if at == len(body):
            break
        damaged += 1
        further = None if damaged > _TRIES else resync(body, at, _TRIES)
        if further is None:
            break
        at = further
    if damaged:
        letters.append(DeadLetter(subject, f"damaged at byte {at}, or cut off", body))
    elif not entries and not letters:
        letters.append(DeadLetter(subject, "nothing is in it", body))
    return entries, letters


def _take(kind: int, payload: bytes, tenant: str, now: int, entries: list[Entry]) -> str | None:
    """Add a record or inputs to the entries, or say what is wrong."""
    if kind == RECORD:
        record = archived(payload)
        if isinstance(record, str):
            return record
        if record.tenant != tenant:
            return "a record of another tenant than its subject's"
        entries.append(Entry(record))
        return None
    return _take_inputs(payload, now, entries) if kind == INPUTS else "a frame that no parcel holds"


def _take_inputs(payload: bytes, now: int, entries: list[Entry]) -> str | None:
    name, separator, text = payload.partition(b"\n")
    last = entries[-1] if entries else None
    if last is None or not separator or name != last.record.id.encode():
        return "inputs that do not follow their record"
    if last.inputs:
        return None if last.inputs[0][3] == text else "other inputs of the same record"
    record = last.record
    entries[-1] = Entry(record, ((record.id, record.tenant, min(record.time, now), text),))
    return None
