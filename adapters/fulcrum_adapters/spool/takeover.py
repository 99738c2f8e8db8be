"""What a dead writer left: where its chains stand, which calls are open, and what of its last segment counts.

Only the last segment is read: it begins with a snapshot. A torn end (the write that was killed) is cut off; anything
else that cannot be read is damage, and then the chains are not continued.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from fulcrum_adapters.spool.folder import Folder, Place
from fulcrum_adapters.spool.frames import RECORD, SNAPSHOT, first, frame, resync, split
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import OpenCall

__all__ = ["DECIDED", "FINISHED", "Standing", "examine", "leg_of", "snapshot"]

DECIDED = "dev.fulcrum.tool_call.decided"
FINISHED = "dev.fulcrum.tool_call.finished"

Key = tuple[str, int]


class _Data(msgspec.Struct):
    leg: int = 0
    effect: str = ""


class _Record(msgspec.Struct):
    type: str
    subject: str
    tenant: str
    seq: int
    hash: str
    data: msgspec.Raw


_data = msgspec.json.Decoder(_Data)
_record = msgspec.json.Decoder(_Record)


def leg_of(kind: str, data: bytes) -> int | None:
    """The leg that a record opens or closes; None when it does neither (a denial, another type)."""
    if kind != FINISHED and (kind != DECIDED or b'"allow"' not in data):
        return None
    try:
        parsed = _data.decode(data)
    except msgspec.DecodeError:
        return None
    return parsed.leg if kind == FINISHED or parsed.effect == "allow" else None


@dataclass(slots=True)
class Standing:
    """Where a writer stands."""

    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    """tenant -> (seq, hash)"""
    open: dict[Key, OpenCall] = field(default_factory=dict)
    end: Place = Place(0, 0)
    snapshot: Place = Place(0, 0)
    quiet: bool = False
    """Nothing follows the snapshot."""
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, call: str, tenant: str, data: bytes) -> None:
        """Remember a call as open, or forget it."""
        leg = leg_of(kind, data)
        if leg is not None:
            if kind == DECIDED:
                self.open[call, leg] = OpenCall(call, leg, tenant, data)
            else:
                self.open.pop((call, leg), None)

    def take(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Move on over frames that were read."""
        for kind, payload in frames:
            if kind == SNAPSHOT:
                self._restore(json.loads(payload))
            elif kind == RECORD:
                record = _record.decode(payload)
                self.heads[record.tenant] = (record.seq, record.hash)
                self.note(record.type, record.subject, record.tenant, bytes(record.data))

    def _restore(self, saved: dict[str, dict[str, list[object]]]) -> None:
        self.heads = {tenant: (int(str(seq)), str(head)) for tenant, (seq, head) in saved["heads"].items()}
        self.open = {
            (call, leg): OpenCall(call, leg, tenant, data.encode())
            for call, leg, tenant, data in saved["open"]  # type: ignore[misc]
        }


def snapshot(writer: str, standing: Standing, previous: Place) -> bytes:
    """The frame that a segment begins with; `previous` is where the segment before it ends."""
    calls = [(call.call, call.leg, call.tenant, call.data.decode()) for call in standing.open.values()]
    text = json.dumps(
        {"writer": writer, "heads": standing.heads, "open": calls, "previous": previous}, separators=(",", ":")
    )
    return frame(SNAPSHOT, text.encode())


def examine(folder: Folder) -> Standing:
    """Read the last segment; the caller holds the lock. Cuts off a torn end. Idempotent."""
    try:
        return _examine(folder)
    except OSError as exc:
        raise Unavailable(f"the audit spool {folder.path} cannot be read: {exc.strerror}") from exc


def _examine(folder: Folder) -> Standing:
    committed, saved, _ = folder.state()
    for number in reversed(folder.segments()):
        path = folder.segment(number)
        raw = path.read_bytes()
        begin = first(raw)
        if (begin and begin[0] == SNAPSHOT) or committed.segment >= number or resync(raw, 0) is not None:
            return _read(folder, number, raw, saved, committed)
        path.unlink()  # killed while it was made: nothing in it was ever acknowledged
    standing = Standing()
    if committed.segment:
        standing.faults.append(f"{folder.path}: segment {committed.segment} is gone")
    return standing


def _read(folder: Folder, number: int, raw: bytes, saved: Place, committed: Place) -> Standing:
    standing = Standing()
    start = 0
    if first(raw) is None:
        standing.faults.append(f"{folder.segment(number)}: damaged at byte 0")
    if saved.segment == number and saved.offset < len(raw):
        begin = first(raw, saved.offset)
        if begin and begin[0] == SNAPSHOT:
            start = saved.offset
    at = start
    count = 0
    while True:
        frames, end, _ = split(raw, at)
        count += len(frames)
        try:
            standing.take(frames)
        except (ValueError, msgspec.DecodeError) as exc:
            standing.faults.append(f"{folder.segment(number)}: a record that is not one of ours: {exc}")
        acknowledged = committed.offset if committed.segment == number else 0
        if end == len(raw):
            if end < acknowledged:
                standing.faults.append(f"{folder.segment(number)}: {acknowledged - end} bytes at its end are gone")
            break
        further = resync(raw, end)
        if further is None and end >= acknowledged:
            os.truncate(folder.segment(number), end)
            break
        standing.faults.append(f"{folder.segment(number)}: damaged at byte {end}")
        if further is None:
            end = len(raw)
            break
        at = further
    if standing.faults:
        folder.mark_damaged(number)
    standing.end = Place(number, end)
    standing.snapshot = Place(number, start)
    standing.quiet = count == 1
    return standing
