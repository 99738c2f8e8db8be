"""What stored records say about spending and about the past, kept so that a lost ledger can be rebuilt quickly.

A call is one row of `budget_ledger` while only one side of it is known, in whatever order its records arrive; once both
are, its charge goes into the sums of its places and the row goes. So the table holds calls in flight and those whose
end nobody recorded: they count at their estimate.
"""

import contextlib
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from fulcrum_adapters.postgres.database import Session
from fulcrum_adapters.postgres.spending_sql import (
    ADD_CALLS,
    ADD_SPENT,
    ADD_TAINTS,
    COMPLETE,
    FORGET,
    FORGET_SPENT,
    UPSERT,
)
from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.ports import ArchivedRecord

__all__ = ["ENVELOPE_KEPT", "KEY_WINDOW", "forget", "merge"]

KEY_WINDOW: Final = 3_600
"""Seconds for which a key's past counts, as in every history."""
ENVELOPE_KEPT: Final = 90 * 86_400
_ORPHANS_KEPT: Final = 30 * 86_400
_MICROS = 1_000_000
_SLICE = KEY_WINDOW // 60 * _MICROS
_SWEEP_ODDS = 1 / 64
_AT_ONCE = 10_000


@dataclass(slots=True)
class _Call:
    """What is known of a call; `places` by its reservation, `charged` by its end."""

    at: int
    leg: int | None = None
    writer: str | None = None
    subject: str | None = None
    places: Sequence[Sequence[Any]] | None = None
    reserved: Sequence[int] | None = None
    charged: Sequence[int] | None = None
    tainted: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])


class _Gathered:
    """What a batch adds, summed by row so that no statement meets a row twice."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], _Call] = {}
        self.spent: dict[Place, list[int]] = {}
        self.taints: dict[tuple[str, str, str], int] = {}
        self.counts: dict[tuple[str, str, str, int], list[int]] = {}

    def take(self, record: ArchivedRecord) -> None:
        """Add one record."""
        spend = record.spend
        if spend is None:
            return
        if record.effect == "allow" and spend.subject is not None:
            self._remember(record, spend.subject, spend.taints)
        is_end = record.outcome is not None
        if spend.reserved is None and not (is_end and (spend.charged is not None or spend.taints)):
            return
        call = self.calls.setdefault((record.tenant, record.subject), _Call(record.time))
        if spend.reserved is not None and call.places is None:
            call.at, call.leg, call.subject = record.time, record.leg or 0, spend.subject
            call.writer = record.chain.partition(".")[0]
            call.places, call.reserved = [list(place) for place in spend.places], list(spend.reserved)
        if is_end:
            if spend.charged is not None and call.charged is None:
                call.charged = list(spend.charged)
            call.tainted += [(label, record.time) for label in spend.taints]

    def settle(self) -> None:
        """Calls known from both sides become sums."""
        for key, call in list(self.calls.items()):
            if call.places is not None and call.charged is not None:
                del self.calls[key]
                self.charge(key[0], call.subject, call.places, call.charged, call.tainted)

    def charge(
        self,
        tenant: str,
        subject: str | None,
        places: Iterable[Sequence[Any]],
        charged: Sequence[int],
        tainted: Iterable[Sequence[Any]],
    ) -> None:
        """One call's cost in each of its places, and what its result tainted."""
        for owner, budget, bucket, starts in places:
            sums = self.spent.setdefault(Place(owner, budget, bucket, starts), [0] * len(charged))
            for position, amount in enumerate(charged):
                sums[position] += amount
        if subject is not None:
            for label, at in tainted:
                self._taint(tenant, subject, label, at)

    def _remember(self, record: ArchivedRecord, subject: str, taints: Iterable[str]) -> None:
        tool = f"{record.server or ''}__{record.tool or ''}"
        part = 0 if _lasts(subject) else record.time // _SLICE
        count = self.counts.setdefault((record.tenant, subject, tool, part), [0, 0])
        count[0] += 1
        count[1] = max(count[1], record.time)
        for label in taints:
            self._taint(record.tenant, subject, label, record.time)

    def _taint(self, tenant: str, subject: str, label: str, at: int) -> None:
        key = (tenant, subject, label)
        self.taints[key] = max(at, self.taints.get(key, at))


def merge(session: Session, records: Iterable[ArchivedRecord]) -> None:
    """Add what records say, as role `fulcrum_ingest`, last in the transaction that stores them.

    `records` must be those that this transaction stores for the first time: what is given twice counts twice. Any
    order, any number of processors at once. Now and then it also forgets what no longer counts.
    """
    gathered = _Gathered()
    for record in records:
        gathered.take(record)
    gathered.settle()
    if gathered.calls:
        rows = [_ledger_row(key, call) for key, call in gathered.calls.items()]
        session.execute(UPSERT, (_json(rows),))
        keys = [{"tenant": tenant, "call": call} for tenant, call in gathered.calls]
        for row in session.execute(COMPLETE, (_json(keys),)).fetchall():
            gathered.charge(*row)
    _write(session, ADD_SPENT, [_spent_row(place, sums) for place, sums in gathered.spent.items()])
    _write(session, ADD_CALLS, [_count_row(key, *count) for key, count in gathered.counts.items()])
    _write(session, ADD_TAINTS, [_taint_row(key, at) for key, at in gathered.taints.items()])
    if random.random() < _SWEEP_ODDS:  # noqa: S311 (which process sweeps is no secret)
        with contextlib.suppress(psycopg.Error), session.transaction():  # it may fail, the records may not
            forget(session, gathered.spent)


def forget(session: Session, places: Iterable[Place] = ()) -> int:
    """Remove some of what can no longer count, and the ended windows of these buckets; how many rows."""
    gone = session.execute(FORGET_SPENT, ([bytes.fromhex(_digest(*place[:3])) for place in places],)).rowcount
    values = {"key": KEY_WINDOW, "envelope": ENVELOPE_KEPT, "orphan": _ORPHANS_KEPT, "most": _AT_ONCE}
    for statement in FORGET:
        gone += session.execute(statement, values).rowcount
    return gone


def _write(session: Session, statement: LiteralString, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        session.execute(statement, (_json(rows),))


def _json(rows: Sequence[dict[str, Any]]) -> str:
    """Without what jsonb refuses, NUL and surrogates that are alone: no record may keep others from being stored."""
    text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")
    return text.replace(b"\\u0000", b"\\ufffd").decode()


def _lasts(subject: str) -> bool:
    return not subject.startswith("key:")


def _digest(*parts: object) -> str:
    """A row's key, hex: names may be longer than an index takes."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


def _ledger_row(key: tuple[str, str], call: _Call) -> dict[str, Any]:
    return {
        "tenant": key[0],
        "call": key[1],
        "leg": call.leg,
        "writer": call.writer,
        "subject": call.subject,
        "at": call.at,
        "places": call.places,
        "reserved": call.reserved,
        "charged": call.charged,
        "tainted": call.tainted,
    }


def _spent_row(place: Place, sums: Sequence[int]) -> dict[str, Any]:
    keys = {"id": _digest(*place), "series": _digest(*place[:3])}
    return {**keys, **place._asdict(), **dict(zip(Amounts._fields, sums, strict=True))}


def _count_row(key: tuple[str, str, str, int], calls: int, at: int) -> dict[str, Any]:
    tenant, subject, tool, _ = key
    return {
        "id": _digest(*key),
        "tenant": tenant,
        "subject": subject,
        "tool": tool,
        "lasting": _lasts(subject),
        "at": at,
        "calls": calls,
    }


def _taint_row(key: tuple[str, str, str], at: int) -> dict[str, Any]:
    tenant, subject, label = key
    return {
        "id": _digest(*key),
        "tenant": tenant,
        "subject": subject,
        "label": label,
        "lasting": _lasts(subject),
        "at": at,
    }
