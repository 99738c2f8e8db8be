"""What the store keeps of a record besides its bytes: the few members that people ask for."""

from datetime import datetime
from typing import Any

import msgspec

from fulcrum_mcp.core.audit import record_hash

__all__ = ["Record", "read_record", "row_of"]


class _Principal(msgspec.Struct):
    agent: str | None = None


class _Data(msgspec.Struct):
    decision_id: str | None = None
    leg: int | None = None
    server: str | None = None
    tool: str | None = None
    effect: str | None = None
    outcome: str | None = None
    principal: _Principal | None = None


class Record(msgspec.Struct):
    """A record's members, without what is never asked for."""

    id: str
    type: str
    subject: str
    time: str
    tenant: str
    chain: str
    seq: int
    prev: str
    hash: str
    data: _Data


class _Bare(msgspec.Struct):
    id: str
    type: str
    subject: str
    time: str
    tenant: str
    chain: str
    seq: int
    prev: str
    hash: str


_decode = msgspec.json.Decoder(Record).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode
_NOTHING = _Data()


def read_record(line: bytes) -> Record | str:
    """A record whose hash is right, or what is wrong with it."""
    try:
        record = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:  # another type of record may use the same names for other things
            bare = _decode_bare(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return f"not an audit record: {exc}"
        record = Record(**{name: getattr(bare, name) for name in bare.__struct_fields__}, data=_NOTHING)
    if record_hash(line) != record.hash or line[-66:-2] != record.hash.encode():
        return "its hash differs"
    return record


def row_of(record: Record, line: bytes, cache: dict[str, int]) -> tuple[Any, ...]:
    """A row of `StoreBatch.rows`; `cache` holds the seconds seen last."""
    data = record.data
    time = record.time
    second = time[:19]
    base = cache.get(second)
    if base is None:
        if len(cache) > 64:  # noqa: PLR2004 - any small number does
            cache.clear()
        base = cache[second] = _microseconds(second)
    tool = data.tool
    return (
        record.chain,
        record.seq,
        record.tenant,
        record.type,
        base + int(time[20:26]),
        record.subject,
        data.leg,
        data.decision_id,
        None if data.principal is None else data.principal.agent,
        None if tool is None else tool if data.server is None else f"{data.server}__{tool}",
        data.effect or data.outcome,
        line,
    )


def _microseconds(second: str) -> int:
    return int(datetime.fromisoformat(second + "+00:00").timestamp()) * 1_000_000
