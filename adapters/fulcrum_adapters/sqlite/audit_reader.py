"""Questions to `audit.db`, from any process, while the processor writes it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fulcrum_adapters.sqlite.audit_schema import connect
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditQuery, DecisionRecord, StoredRecord

__all__ = ["SqliteAuditReader"]

_LARGEST = 2**63 - 1


class SqliteAuditReader:
    """An `AuditReader`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect(path, write=False)

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as exc:
            raise Unavailable(f"the audit store {self._path} does not answer: {exc}") from exc

    def query(self, query: AuditQuery) -> Sequence[StoredRecord]:
        """See `AuditReader`."""
        tests = {
            "tenant = ?": query.tenant,
            "tool GLOB ?": _glob(query.tool),
            "effect = ?": query.effect,
            "agent = ?": query.agent,
            "type = ?": query.type,
            "call = ?": query.call,
            "decision = ?": query.decision,
            "time >= ?": None if query.since is None else query.since // 1000,
            "time < ?": None if query.until is None else query.until // 1000,
            "id > ?": query.after,
            "id < ?": query.before,
        }
        used = {test: value for test, value in tests.items() if value is not None}
        where = " AND ".join(used) or "1"
        order = "id" if query.after is not None else "id DESC"
        statement = f"SELECT id, line FROM audit_events WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        with self._translated() as db:
            return [StoredRecord(*row) for row in db.execute(statement, (*map(_held, used.values()), query.limit))]

    def decision(self, tenant: str | None, decision_id: str) -> DecisionRecord | None:
        """See `AuditReader`."""
        with self._translated() as db:
            found = db.execute(
                "SELECT call, leg, line FROM audit_events WHERE decision = ?1 AND type LIKE '%.decided'"
                " AND (?2 IS NULL OR tenant = ?2)",
                (_held(decision_id), _held(tenant)),
            ).fetchone()
            if found is None:
                return None
            call, leg, line = found
            record = json.loads(line)
            inputs = db.execute("SELECT inputs FROM call_inputs WHERE record = ?", (record["id"],)).fetchone()
            finished = db.execute(
                "SELECT line FROM audit_events WHERE call = ? AND leg IS ? AND tenant = ? AND type LIKE '%.finished'"
                " ORDER BY id",
                (call, leg, record["tenant"]),
            ).fetchall()
        return DecisionRecord(line, inputs[0] if inputs else None, [row[0] for row in finished])

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """See `AuditReader`."""
        db = connect(self._path, write=False)  # of its own: a long transaction that keeps one moment's state
        try:
            db.execute("BEGIN")
            tenants = {chain.partition(".")[2] for chain in _chains(db)}
            tenants.update(row[0] for row in db.execute("SELECT DISTINCT tenant FROM audit_checkpoints"))
            for each in sorted(tenants):
                if tenant is None or each == tenant:
                    yield from _section(db, each)
        except sqlite3.Error as exc:
            raise Unavailable(f"the audit store {self._path} does not answer: {exc}") from exc
        finally:
            db.close()

    def counts(self, tenant: str | None) -> Mapping[str, int]:
        """See `AuditReader`."""
        only = "WHERE ?1 IS NULL OR tenant = ?1"
        statement = (
            f"SELECT (SELECT coalesce(sum(size), 0) FROM audit_chains {only}),"  # noqa: S608
            f" (SELECT count(*) FROM audit_chains {only}),"
            f" (SELECT count(*) FROM audit_checkpoints {only}), (SELECT count(*) FROM call_inputs),"
            " (SELECT count(*) FROM audit_faults), (SELECT coalesce(max(id), 0) FROM audit_events)"
        )
        with self._translated() as db:
            row = db.execute(statement, (tenant,)).fetchone()
        return dict(zip(("records", "chains", "checkpoints", "inputs", "faults", "last"), row, strict=True))

    def close(self) -> None:
        """See `AuditReader`."""
        self._db.close()


def _held(value: str | int | None) -> str | int | None:
    """What SQLite can be asked: text without lone surrogates, 64-bit integers."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return value if value is None else max(-_LARGEST, min(value, _LARGEST))


def _glob(pattern: str | None) -> str | None:
    """`*` and `?` only: what looks like a character class in a tool's name is meant as it stands."""
    return None if pattern is None else pattern.replace("[", "[[]")


_CHAINS = """
WITH RECURSIVE found(chain) AS (
    SELECT min(chain) FROM audit_events
    UNION ALL SELECT (SELECT min(chain) FROM audit_events WHERE chain > found.chain) FROM found WHERE chain NOT NULL)
SELECT chain FROM found WHERE chain NOT NULL ORDER BY chain
"""  # every distinct chain in as many steps as there are chains


def _chains(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute(_CHAINS)]


def _section(db: sqlite3.Connection, tenant: str) -> Iterator[bytes]:
    """One tenant's part of an export."""
    chains = [chain for chain in _chains(db) if chain.partition(".")[2] == tenant]
    done = dict.fromkeys(chains, 0)
    checkpoints = db.execute("SELECT line FROM audit_checkpoints WHERE tenant = ? ORDER BY number", (tenant,))
    for (line,) in checkpoints:
        for claim in json.loads(line)["chains"]:
            chain, size = claim["chain"], claim["size"]
            yield from _records(db, chain, done.get(chain, 0), size)
            done[chain] = size
        yield line
    for chain in chains:
        yield from _records(db, chain, done[chain], None)


def _records(db: sqlite3.Connection, chain: str, above: int, upto: int | None) -> Iterator[bytes]:
    statement = "SELECT line FROM audit_events WHERE chain = ? AND seq > ? AND seq <= ? ORDER BY seq"
    for (line,) in db.execute(statement, (chain, above, 2**62 if upto is None else upto)):
        yield line
