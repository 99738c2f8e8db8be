"""Questions to the stored trail. A tenant's are asked as `fulcrum_app`, which the server shows that tenant's rows only.

Rows are numbered before they are committed: whatever is asked, rows above the lowest number that may still appear are
left out, so that a reader who goes on from the last row it was shown never misses one.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from fulcrum_adapters.postgres.audit_rows import NAME, clean, held
from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_mcp.ports import AuditQuery, DecisionRecord, StoredRecord

__all__ = ["PostgresAuditReader"]

_SETTLED = "SELECT fulcrum.audit_settled()"
_SHOWN = "coalesce(server || '__', '') || tool"
_DECIDED = """
SELECT tenant, call, leg, id, line FROM fulcrum.audit_events
  WHERE decision = %s AND type LIKE '%%.decided' ORDER BY row LIMIT 1
"""
_INPUTS = "SELECT inputs FROM fulcrum.call_inputs WHERE record = %s"
_FINISHED = """
SELECT line FROM fulcrum.audit_events
  WHERE call = %s AND leg IS NOT DISTINCT FROM %s AND tenant = %s AND type LIKE '%%.finished' ORDER BY row
"""
_COUNTS = """
SELECT (SELECT coalesce(sum(size), 0)::bigint FROM fulcrum.audit_chains),
       (SELECT count(*) FROM fulcrum.audit_chains),
       (SELECT count(*) FROM fulcrum.audit_checkpoints),
       (SELECT count(*) FROM fulcrum.call_inputs)
"""
_FAULTS = "SELECT count(*) FROM fulcrum.audit_faults"
_CHAINS = "SELECT tenant, chain, broken IS NOT NULL FROM fulcrum.audit_chains ORDER BY tenant, chain"
_CHECKPOINTS = """
SELECT number, line FROM fulcrum.audit_checkpoints WHERE tenant = %s AND number > %s ORDER BY number LIMIT %s
"""
_RECORDS = """
SELECT seq, time, line FROM fulcrum.audit_events WHERE chain = %s AND seq > %s AND seq <= %s ORDER BY seq LIMIT %s
"""
_UNHURRIED = "SET LOCAL idle_in_transaction_session_timeout = '10min'"  # whoever reads an export may be slow
_PAGE = 128
"""Lines fetched at once."""
_EXPORTS = 4
"""At the same time."""
_PATIENCE = 60.0
"""Seconds for counting everything."""
_LAST = 2**63 - 1
_ON_ITS_WAY = 900_000_000
"""Microseconds for which a record that others follow may be on its way here."""


class PostgresAuditReader:
    """An `AuditReader`; several threads may use one. Its database is closed by whoever made it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._exports = Database(replace(database.config, pool=_EXPORTS))
        """Connections of their own: an export may take long, and nobody else should wait for it."""

    def query(self, query: AuditQuery) -> Sequence[StoredRecord]:
        """See `AuditReader`."""
        with _as(self._database, query.tenant) as connection:
            tests = {**_tests(query), "row <= %s": _settled(connection)}
            used = {test: value for test, value in tests.items() if value is not None}
            where, order = " AND ".join(used), "ASC" if query.after is not None else "DESC"
            statement = f"SELECT row, line FROM fulcrum.audit_events WHERE {where} ORDER BY row {order} LIMIT %s"  # noqa: S608 (names of this module)
            values = [clean(value) if isinstance(value, str) else held(value) for value in used.values()]
            rows = connection.execute(statement.encode(), [*values, held(query.limit)])
            return [StoredRecord(*row) for row in rows]

    def decision(self, tenant: str | None, decision_id: str) -> DecisionRecord | None:
        """See `AuditReader`."""
        with _as(self._database, tenant, snapshot=True) as connection:
            found = connection.execute(_DECIDED, [clean(decision_id)]).fetchone()
            if found is None:
                return None
            owner, call, leg, record, line = found
            inputs = connection.execute(_INPUTS, [record]).fetchone()
            finished = connection.execute(_FINISHED, [call, leg, owner]).fetchall()
        return DecisionRecord(line, inputs[0] if inputs else None, [row[0] for row in finished])

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """See `AuditReader`."""
        with _as(self._exports, tenant, snapshot=True) as connection:
            connection.execute(_UNHURRIED)
            chains: dict[str, dict[str, bool]] = {}
            for owner, chain, broken in connection.execute(_CHAINS):
                chains.setdefault(owner, {})[chain] = broken
            for owner, known in chains.items():
                yield from _section(connection, owner, known)

    def counts(self, tenant: str | None) -> Mapping[str, int]:
        """See `AuditReader`; faults are the operator's."""
        with _as(self._database, tenant, timeout=_PATIENCE) as connection:
            last = _settled(connection)
            row = connection.execute(_COUNTS).fetchone()
            faults = connection.execute(_FAULTS).fetchone() if tenant is None else None
        counted = (*(row or ()), faults[0] if faults else 0, last)
        return dict(zip(("records", "chains", "checkpoints", "inputs", "faults", "last"), counted, strict=True))

    def close(self) -> None:
        """See `AuditReader`."""
        self._exports.close()


def _as(database: Database, tenant: str | None, **options: Any) -> AbstractContextManager[Session]:
    """As the application for a tenant; for the operator as the role that stores, which sees all."""
    if tenant is None:
        return database.session("fulcrum_ingest", **options)
    return database.session("fulcrum_app", clean(tenant), **options)


def _settled(connection: Session) -> int:
    """A statement of its own: what follows sees every row up to here that will ever be seen."""
    row = connection.execute(_SETTLED).fetchone()
    return int(row[0]) if row else 0


def _tests(query: AuditQuery) -> dict[str, str | int | None]:
    return {
        "tenant = %s": query.tenant,
        **_tool_tests(query.tool),
        "effect = %s": query.effect,
        "agent = %s": query.agent,
        "type = %s": query.type,
        "call = %s": query.call,
        "decision = %s": query.decision,
        "time >= %s": None if query.since is None else query.since // 1000,
        "time < %s": None if query.until is None else query.until // 1000,
        "row > %s": query.after,
        "row < %s": query.before,
    }


def _tool_tests(pattern: str | None) -> dict[str, str | int | None]:
    """The whole name against the pattern, and its first characters by the index, as far as they are fixed.

    Only `*` and `?` mean anything. The bounds are comparisons since row-level security lets nothing else use an index.
    """
    if pattern is None:
        return {}
    fixed = pattern
    for wild in "*?":
        fixed = fixed.partition(wild)[0]
    tests: dict[str, str | int | None] = {}
    first = clean(fixed[:NAME])
    if fixed == pattern:
        tests["name = %s"] = first
        tests[f"{_SHOWN} = %s"] = pattern
        return tests
    if first:
        tests["name >= %s"] = first
        tests["name < %s"] = _next(first)
    quoted = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    tests[f"{_SHOWN} LIKE %s"] = quoted.replace("*", "%").replace("?", "_")
    return tests


def _next(prefix: str) -> str | None:
    """What is above everything that begins so, by code points; None: nothing simple is."""
    last = ord(prefix[-1]) + 1
    if 0xD800 <= last <= 0xDFFF:  # noqa: PLR2004 (surrogates are no characters)
        last = 0xE000
    return prefix[:-1] + chr(last) if last <= 0x10FFFF else None  # noqa: PLR2004 (the last code point)


def _section(connection: Session, tenant: str, chains: Mapping[str, bool]) -> Iterator[bytes]:
    """One tenant's part of an export; `chains`: which there are, and whether they are broken."""
    done = dict.fromkeys(chains, 0)
    for line in _checkpoints(connection, tenant):
        for claim in json.loads(line)["chains"]:
            chain, size = claim["chain"], claim["size"]
            for _, _, record in _records(connection, chain, done.get(chain, 0), size):
                yield record
            done[chain] = size
        yield line
    for chain, broken in chains.items():
        yield from _tail(connection, chain, done[chain], broken=broken)


def _tail(connection: Session, chain: str, above: int, *, broken: bool) -> Iterator[bytes]:
    """What no checkpoint covers yet, up to a record that others may be storing at this moment.

    What is missing for longer is missing: then what follows it is shown, and the export does not verify.
    """
    patient = time.time_ns() // 1000 - _ON_ITS_WAY
    for seq, at, line in _records(connection, chain, above, _LAST):
        if seq != above + 1 and not broken and at > patient:
            return
        above = seq
        yield line


def _checkpoints(connection: Session, tenant: str) -> Iterator[bytes]:
    above = 0
    while page := connection.execute(_CHECKPOINTS, [tenant, above, _PAGE]).fetchall():
        for number, line in page:
            above = number
            yield line


def _records(connection: Session, chain: str, above: int, upto: int) -> Iterator[tuple[int, int, bytes]]:
    while page := connection.execute(_RECORDS, [chain, above, upto, _PAGE]).fetchall():
        for seq, at, line in page:
            above = seq
            yield seq, at, line
