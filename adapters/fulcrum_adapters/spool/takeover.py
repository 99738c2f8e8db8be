"""What a dead writer left: where its chains stand, which calls are open, and what of its last segment counts.

Only what follows the last snapshot is read; every segment begins with one. A torn end (the write that was killed) is
cut off; anything else that cannot be read is damage, and then the chains are not continued.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fulcrum_adapters.spool.folder import NOWHERE, Folder, Place
from fulcrum_adapters.spool.frames import read_frame
from fulcrum_mcp.core.frames import RECORD, SNAPSHOT, frame, resync, split
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
    end: Place = NOWHERE
    snapshot: Place = NOWHERE
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

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.heads = {tenant: (seq, head) for tenant, (seq, head) in saved["heads"].items()}
        self.open = {
            (call, leg): OpenCall(call, leg, tenant, data.encode("utf-8", "surrogateescape"))
            for call, leg, tenant, data in saved["open"]
        }


def snapshot(writer: str, standing: Standing, previous: Place) -> bytes:
    """The frame that a segment begins with; `previous` is where the segment before it ends."""
    opened = standing.open.values()
    calls = [(call.call, call.leg, call.tenant, call.data.decode("utf-8", "surrogateescape")) for call in opened]
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
        if _is_snapshot(path, 0) or committed.segment >= number or resync(path.read_bytes(), 0) is not None:
            return _read(folder, number, saved, committed)
        path.unlink()  # killed while it was made: nothing in it was ever acknowledged
    standing = Standing()
    if committed.segment:
        standing.faults.append(f"{folder.path}: segment {committed.segment} is gone")
    return standing


def _read(folder: Folder, number: int, saved: Place, committed: Place) -> Standing:
    standing = Standing()
    path = folder.segment(number)
    if committed.segment > number:
        standing.faults.append(f"{folder.path}: segment {committed.segment} is gone")
    if not _is_snapshot(path, 0):
        standing.faults.append(f"{path}: damaged at byte 0")
    start = saved.offset if saved.segment == number and _is_snapshot(path, saved.offset) else 0
    acknowledged = committed.offset if committed.segment == number else 0
    end = _walk(path, start, acknowledged, standing)
    if standing.faults:
        folder.mark_damaged(number)
    standing.end = Place(number, end)
    standing.snapshot = Place(number, start)
    return standing


def _is_snapshot(path: Path, at: int) -> bool:
    found = read_frame(path, at)
    return found is not None and found[0] == SNAPSHOT


def _walk(path: Path, start: int, acknowledged: int, standing: Standing) -> int:
    """Take in everything from a snapshot on; where it ends. Cuts off what is torn, notes what is damaged."""
    with path.open("rb") as file:
        file.seek(start)
        raw = file.read()
    at = count = 0
    while True:
        frames, end, _ = split(raw, at)
        count += len(frames)
        try:
            standing.take(frames)
        except (ValueError, LookupError, msgspec.DecodeError) as exc:
            standing.faults.append(f"{path}: a record that is not one of ours: {exc}")
        further = None if end == len(raw) else resync(raw, end)
        if further is None:
            break
        standing.faults.append(f"{path}: damaged at byte {start + end}")
        at = further
    standing.quiet = count == 1
    if start + end < acknowledged:
        standing.faults.append(f"{path}: damaged from byte {start + end}, {acknowledged} were acknowledged")
        return start + len(raw)
    if end < len(raw):
        os.truncate(path, start + end)
    return start + end
