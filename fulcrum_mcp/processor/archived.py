"""From a record's exact bytes to what the archive keeps of it: members to ask for, and what it says about spending.

A line is a record only if its hash is the hash of its bytes and it has the one form that `core.trail` accepts.
Whatever its `data` holds can then never keep it out of the archive: members that are not what they should be are left
out, text is made fit for any database, and names that nobody could have meant are cut.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from fulcrum_mcp.core.audit import RecordHead, parse_record
from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.ports import ArchivedRecord, Spend

__all__ = ["DECIDED", "FINISHED", "archived"]

DECIDED = "dev.fulcrum.tool_call.decided"
FINISHED = "dev.fulcrum.tool_call.finished"

LONGEST_NAME = 256
"""Characters of a member that people ask for; an index refuses what is much longer."""
LONGEST_ID = 512
"""Characters of an id or a chain: longer ones are not ours."""

_Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Principal(msgspec.Struct):
    agent: str | None = None
    key: str | None = None


class _Reason(msgspec.Struct):
    policy: str = ""
    code: str = ""


class _Context(msgspec.Struct):
    envelope: str | None = None


class _Bucket(msgspec.Struct):
    id: str
    bucket: str
    owner: str | None = None
    starts: _Count | None = None


class _Amounts(msgspec.Struct):
    calls: _Count = 0
    usd_micros: _Count = 0
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    bytes: _Count = 0
    seconds: _Count = 0


class _Data(msgspec.Struct):
    decision_id: str | None = None
    leg: _Small | None = None
    server: str | None = None
    tool: str | None = None
    effect: str | None = None
    outcome: str | None = None
    principal: _Principal | None = None
    duration_us: _Count | None = None
    bytes: _Count | None = None
    cost: dict[str, _Whole] = {}
    reasons: list[_Reason] = []
    budgets: list[_Bucket] = []
    reserved: _Amounts | None = None
    charged: _Amounts | None = None
    taints: list[str] = []
    context: _Context | None = None


_decode = msgspec.json.Decoder(_Data).decode
_MEMBERS = {field.name: field.type for field in msgspec.structs.fields(_Data)}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - both sides of the difference are UTC
_seconds: dict[str, int] = {}


def archived(line: bytes) -> ArchivedRecord | str:
    """The record, or what is wrong with the line."""
    head = parse_record(line)
    if head is None:
        return "not an audit record"
    what = _lies(head)
    if what is not None:
        return what
    moment = head.time
    base = _seconds.get(moment[:19])
    if base is None:
        try:
            base = _second(moment[:19])
        except ValueError:
            return "its time is not a time"
    begins, ends = head.data
    raw = line[begins:ends]
    try:
        data = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _pick(raw)
        if found is None:
            return "its data is not JSON"
        data = found
    principal = data.principal
    reason = data.reasons[0] if data.reasons else None
    cost = data.cost
    return ArchivedRecord(
        id=head.id,
        chain=head.chain,
        seq=head.seq,
        tenant=head.tenant,
        type=_name(head.type) or "",
        time=base + int(moment[20:26]),
        prev=head.prev,
        hash=head.hash,
        subject=_name(head.subject) or "",
        leg=data.leg,
        decision=_name(data.decision_id),
        agent=None if principal is None else _name(principal.agent),
        key=None if principal is None else _name(principal.key),
        server=_name(data.server),
        tool=_name(data.tool),
        effect=_name(data.effect),
        outcome=_name(data.outcome),
        duration_us=data.duration_us,
        size=data.bytes,
        cost={_name(name) or "": value for name, value in cost.items()} if cost else cost,
        policy=None if reason is None else _name(reason.policy),
        code=None if reason is None else _name(reason.code),
        spend=_spend(head.type, head.tenant, data),
        line=line,
    )


def _lies(head: RecordHead) -> str | None:
    if not head.whole:
        return "its hash differs"
    if head.chain.partition(".")[2] != head.tenant:
        return "its chain belongs to another tenant"
    if not (_fit(head.id) and _fit(head.chain)):
        return "its id or its chain is none of ours"
    return None


def _spend(kind: str, tenant: str, data: _Data) -> Spend | None:
    """Of a `decided` record always: its call counts in its subject's past. Of a `finished` one if it says anything."""
    if kind == DECIDED:
        envelope = data.context.envelope if data.context is not None else None
        key = data.principal.key if data.principal is not None else None
        subject = f"envelope:{envelope}" if envelope is not None else None if key is None else f"key:{key}"
        return Spend(
            None if subject is None else _text(subject),
            tuple(
                Place(_text(b.owner) if b.owner is not None else tenant, _text(b.id), _text(b.bucket), b.starts)
                for b in data.budgets
                if b.starts is not None  # else it limits the rate only
            ),
            reserved=_amounts(data.reserved),
            taints=_texts(data.taints),
        )
    if kind == FINISHED and (data.charged is not None or data.taints):
        return Spend(charged=_amounts(data.charged), taints=_texts(data.taints))
    return None


def _amounts(said: _Amounts | None) -> Amounts | None:
    """What is not said is zero, calls too."""
    if said is None:
        return None
    return Amounts(said.calls, said.usd_micros, said.input_tokens, said.output_tokens, said.bytes, said.seconds)


def _second(text: str) -> int:
    """Microseconds since the epoch; those seen last are remembered."""
    if len(_seconds) > 64:  # noqa: PLR2004 - any small number does
        _seconds.clear()
    since = datetime.fromisoformat(text) - _EPOCH
    found = _seconds[text] = (since.days * 86_400 + since.seconds) * 1_000_000
    return found


def _fit(text: str) -> bool:
    return len(text) <= LONGEST_ID and _text(text) == text


def _name(text: str | None) -> str | None:
    if text is None or (len(text) <= LONGEST_NAME and text.isascii() and "\0" not in text):
        return text
    return _text(text[:LONGEST_NAME])


def _text(text: str) -> str:
    """Without what a database refuses: NUL, and surrogates that are alone."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _texts(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_text, found))


def _pick(raw: bytes) -> _Data | None:
    """Member by member what is as it should be; None if it is not JSON."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    data = _Data()
    if isinstance(value, dict):
        for name, kind in _MEMBERS.items():
            if name in value:
                _put(data, name, value[name], kind)
    return data


def _put(data: _Data, name: str, value: object, kind: Any) -> None:
    try:
        setattr(data, name, msgspec.convert(value, kind))
    except msgspec.ValidationError:
        return
