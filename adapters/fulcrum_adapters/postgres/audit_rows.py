"""Records as columns of `audit_events` and `metrics`, and what can never be a row there.

The bytes of a record are kept whatever they hold. Its columns are for asking only: text that PostgreSQL cannot hold or
index is changed or cut there, and numbers are held within their type, so that no record can keep others from being
stored.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from fulcrum_adapters.postgres.arrays import ArrayType, Packed, packed
from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.ports import ArchivedRecord, Spend

__all__ = ["COLUMNS", "NAME", "clean", "columns_of", "fits_key", "held", "plain", "shown_tool", "unfit"]

NAME = 128
"""Characters of `<server>__<tool>` in the index."""
_HASH = re.compile("[0-9a-f]{64}")
_KEY = 512
_TEXT = 2048
_SMALL = 2**31 - 1
_BIG = 2**63 - 1
_NO_SPEND = Spend()
_DECIDED = ".tool_call.decided"
_FINISHED = ".tool_call.finished"
_SUSPENDED = "input_required"
_END = 2
"""What a record that tells a call's end is to `metrics`."""
_FREE = (None,) * len(Amounts._fields)

Made = Callable[[ArchivedRecord], Any]


def clean(text: str) -> str:
    """Text that PostgreSQL can hold."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def shown_tool(server: str | None, tool: str | None) -> str | None:
    """`<server>__<tool>`, as people ask for it."""
    return tool if tool is None or server is None else f"{server}__{tool}"


def fits_key(text: str) -> bool:
    """It can be an id or a name in an index, as it stands."""
    return 0 < len(text) <= _KEY and clean(text) == text


def unfit(record: ArchivedRecord) -> str | None:
    """Why a record's place, id or tenant can be no key; None: they can."""
    for name, text in (("chain", record.chain), ("id", record.id), ("tenant", record.tenant)):
        if not fits_key(text):
            return f"its {name} is empty, too long or not text that can be kept"
    if not 0 < record.seq <= _BIG or not _HASH.fullmatch(record.hash) or not _HASH.fullmatch(record.prev):
        return "its seq, hash or prev is none"
    return None


def _cut(text: str | None) -> str | None:
    return None if text is None else clean(text[:_TEXT])


def _key(text: str | None) -> str | None:
    """Text that stands in an index; 512 characters are at most 2048 bytes."""
    return None if text is None else clean(text[:_KEY])


def _name(record: ArchivedRecord) -> str | None:
    name = shown_tool(record.server, record.tool)
    return None if name is None else clean(name[:NAME])


def held(number: int) -> int:
    """A number within PostgreSQL's bigint."""
    return number if -_BIG <= number <= _BIG else _BIG if number > 0 else -_BIG


def _number(value: int | None) -> int | None:
    return None if value is None else held(value)


def _about(record: ArchivedRecord) -> int:
    """What the record is to `metrics`: a decision, an end, or an event."""
    return 1 if record.type.endswith(_DECIDED) else _END if record.type.endswith(_FINISHED) else 0


def _costs(record: ArchivedRecord) -> Sequence[int | None]:
    """What an ended call cost: what the ledger was told, else what the record says; None where it is free."""
    if _about(record) != _END or record.outcome == _SUSPENDED:
        return _FREE
    spend = record.spend
    if spend is not None and spend.charged is not None:
        return [held(amount) for amount in spend.charged]
    return [held(record.cost.get(name, 0)) for name in Amounts._fields]


def plain(record: ArchivedRecord) -> ArchivedRecord:
    """The record, its members such that any statement takes them; nearly always the record itself."""
    spend = record.spend or _NO_SPEND
    texts = [record.subject, record.server or "", record.tool or "", record.effect or "", spend.subject or ""]
    texts += spend.taints
    for place in spend.places:
        texts += (place.owner, place.budget, place.bucket)
    joined = "".join(texts)
    if joined.isascii() and "\0" not in joined and abs(record.leg or 0) <= _SMALL and abs(record.time) <= _BIG:
        return record
    places = tuple(Place(clean(p.owner), clean(p.budget), clean(p.bucket), held(p.starts)) for p in spend.places)
    cleaned = spend._replace(subject=_clean(spend.subject), places=places, taints=tuple(map(clean, spend.taints)))
    return record._replace(
        subject=clean(record.subject),
        leg=None if record.leg is None else min(max(record.leg, -_SMALL), _SMALL),
        time=held(record.time),
        server=_clean(record.server),
        tool=_clean(record.tool),
        effect=_clean(record.effect),
        spend=None if record.spend is None else cleaned,
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)


class _Column(NamedTuple):
    name: str
    type: ArrayType
    made: Made


_MEMBERS: Sequence[_Column] = (
    _Column("chain", "text", attrgetter("chain")),
    _Column("seq", "bigint", attrgetter("seq")),
    _Column("id", "text", attrgetter("id")),
    _Column("tenant", "text", attrgetter("tenant")),
    _Column("type", "text", lambda r: _key(r.type)),
    _Column("time", "bigint", lambda r: _number(r.time)),
    _Column("prev", "bytea", lambda r: bytes.fromhex(r.prev)),
    _Column("hash", "bytea", lambda r: bytes.fromhex(r.hash)),
    _Column("call", "text", lambda r: _key(r.subject)),
    _Column("leg", "bigint", lambda r: _number(r.leg)),
    _Column("decision", "text", lambda r: _key(r.decision)),
    _Column("agent", "text", lambda r: _cut(r.agent)),
    _Column("key", "text", lambda r: _cut(r.key)),
    _Column("server", "text", lambda r: _cut(r.server)),
    _Column("tool", "text", lambda r: _cut(r.tool)),
    _Column("name", "text", _name),
    _Column("effect", "text", lambda r: _cut(r.effect or r.outcome)),
    _Column("policy", "text", lambda r: _cut(r.policy)),
    _Column("code", "text", lambda r: _cut(r.code)),
    _Column("line", "bytea", attrgetter("line")),
    _Column("about", "bigint", _about),
    _Column("duration_us", "bigint", lambda r: _number(r.duration_us)),
    _Column("size", "bigint", lambda r: _number(r.size)),
)
COLUMNS: Sequence[tuple[str, ArrayType]] = (
    *((member.name, member.type) for member in _MEMBERS),
    *((f"cost_{name}", "bigint") for name in Amounts._fields),
)
"""Names and types of what `columns_of` gives."""


def columns_of(records: Sequence[ArchivedRecord]) -> list[Packed]:
    """One array of values a column, for `unnest`."""
    members = [packed(member.type, list(map(member.made, records))) for member in _MEMBERS]
    return members + [packed("bigint", column) for column in zip(*map(_costs, records), strict=True)]
