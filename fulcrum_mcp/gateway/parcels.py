"""A writer's lines made into parcels: one chain each, contiguous, every record with its inputs beside it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fulcrum_mcp.core.audit import RecordHead, parse_record
from fulcrum_mcp.core.frames import INPUTS, RECORD, frame
from fulcrum_mcp.ports import Parcel

__all__ = ["Load", "Packer"]

_SLICE: Final = 32
"""Records between two breaths: other threads wait for the interpreter's lock meanwhile."""


@dataclass(slots=True)
class Load:
    """What a piece of a spool holds."""

    parcels: list[Parcel] = field(default_factory=list[Parcel])
    ends: dict[str, int] = field(default_factory=dict[str, int])
    """chain -> the last seq in it."""
    records: int = 0
    size: int = 0
    gaps: dict[str, str] = field(default_factory=dict[str, str])
    """chain -> which records do not stand where they should."""
    refused: list[str] = field(default_factory=list[str])
    """Lines that are no records of this writer."""


class _Open:
    """A parcel that is being filled."""

    __slots__ = ("first", "last", "parts", "size", "tenant")

    def __init__(self, tenant: str, first: int) -> None:
        self.tenant = tenant
        self.first = self.last = first
        self.parts: list[bytes] = []
        self.size = 0

    def put(self, part: bytes) -> None:
        """Add a frame."""
        self.parts.append(part)
        self.size += len(part)


class Packer:
    """One writer's. `held` is its last line while its inputs may still come with the next piece."""

    def __init__(self, writer: str, most_bytes: int, breath: float) -> None:
        self._prefix = f"{writer}."
        self._most = most_bytes
        self._breath = breath
        self._seen: dict[str, int] = {}
        self.held: bytes | None = None

    def pack(
        self,
        lines: Sequence[bytes],
        inputs: Sequence[tuple[str, bytes]],
        stored: Mapping[str, int],
        *,
        attempt: int = 0,
        hold: bool = False,
    ) -> Load:
        """Parcels of everything above what is `stored`.

        `hold`: keep the last line for the next call if its inputs are not here, because they may be there.
        """
        load = Load()
        beside = dict(inputs)
        if self.held is not None:
            lines, self.held = [self.held, *lines], None
        pending: dict[str, _Open] = {}
        for number, line in enumerate(lines, 1):
            if number % _SLICE == 0 and self._breath:
                time.sleep(self._breath)
            record = parse_record(line)
            if record is None or not record.whole or record.chain != self._prefix + record.tenant:
                load.refused.append(f"a line that is no record of this writer: {line[:80]!r}")
                continue
            text = beside.pop(record.id, None)
            if hold and text is None and number == len(lines):
                self.held = line
                break
            have = stored.get(record.chain, 0)
            self._place(load, record.chain, record.seq, have)
            if record.seq > have:
                self._add(load, pending, record, line, text, attempt)
        load.parcels += [_parcel(chain, each, attempt) for chain, each in pending.items()]
        load.size = sum(len(parcel.body) for parcel in load.parcels)
        return load

    def _add(
        self, load: Load, pending: dict[str, _Open], record: RecordHead, line: bytes, text: bytes | None, attempt: int
    ) -> None:
        chain = record.chain
        open_ = pending.get(chain)
        if open_ is not None and (record.seq != open_.last + 1 or open_.size > self._most):
            load.parcels.append(_parcel(chain, open_, attempt))
            open_ = None
        if open_ is None:
            open_ = pending[chain] = _Open(record.tenant, record.seq)
        open_.last = record.seq
        open_.put(frame(RECORD, line))
        if text is not None:
            open_.put(frame(INPUTS, b"%b\n%b" % (record.id.encode(), text)))
        load.records += 1

    def _place(self, load: Load, chain: str, seq: int, stored: int) -> None:
        expected = max(self._seen.get(chain, 0), stored) + 1
        if seq > expected:
            load.gaps[chain] = f"seq {expected} to {seq - 1} are not in the spool, and the archive does not have them"
        self._seen[chain] = max(seq, self._seen.get(chain, 0))
        load.ends[chain] = max(seq, load.ends.get(chain, 0))


def _parcel(chain: str, open_: _Open, attempt: int) -> Parcel:
    return Parcel(open_.tenant, chain, open_.first, open_.last, b"".join(open_.parts), attempt)
