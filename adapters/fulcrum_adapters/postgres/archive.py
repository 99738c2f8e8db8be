"""Where the processors store: records, their columns, metrics and what was spent, each batch in one transaction.

A batch travels as one array a column and becomes rows by one statement, sorted, so that several processors never wait
for each other in a circle. (COPY does not work under row-level security, and a staging table costs more than it saves.)
What is counted is only what the same statement has newly stored: a record that comes again counts for nothing. A record
whose place another one has counts as spent too, once: which of the two is true nobody knows here, and both may be.
"""

from collections.abc import Sequence

from psycopg import errors

from fulcrum_adapters.postgres import dead_letters, spending
from fulcrum_adapters.postgres.arrays import packed
from fulcrum_adapters.postgres.audit_rows import COLUMNS, clean, columns_of, fits_key, held, plain, unfit
from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_mcp.errors import Conflict, Unavailable
from fulcrum_mcp.ports import ArchivedRecord, DeadLetter

__all__ = ["PostgresArchive"]

Inputs = Sequence[tuple[str, str, int, bytes]]

_RIVALS = (errors.DeadlockDetected, errors.SerializationFailure)
_TAKEN_WHY = "its place or its id is taken by another record"
_TRIES = 3
_ERASED = 5000
"""Inputs erased in one transaction."""

_ENTER = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), fulcrum.audit_enter()
"""  # while a transaction stores, nobody reads past it: one whose process was stopped must not last

_EVENT = "chain, seq, id, tenant, type, time, prev, hash, call, leg, decision, agent, key, server, tool, name, effect"
_STORE = f"""
WITH given AS MATERIALIZED (
  SELECT nextval('fulcrum.audit_rows') AS row, g.*
    FROM unnest({", ".join(f"%b::{kind}[]" for _, kind in COLUMNS)})
         WITH ORDINALITY AS g ({", ".join(name for name, _ in COLUMNS)}, place)
), fresh AS (
  INSERT INTO fulcrum.audit_events (row, {_EVENT}, policy, code, line)
    SELECT row, {_EVENT}, policy, code, line FROM given ORDER BY chain, seq
    ON CONFLICT DO NOTHING RETURNING row
), counted AS MATERIALIZED (
  SELECT given.*, CASE WHEN at > now() + interval '1 hour' THEN now() ELSE at END AS counted_at
    FROM (SELECT given.*, timestamptz 'epoch'
                          + least(greatest(time, 0), 1::bigint << 53) * interval '1 microsecond' AS at
            FROM given) AS given
    JOIN fresh USING (row)
    WHERE at > now() - interval '90 days'
), calls AS (
  INSERT INTO metrics.tool_calls (time, tenant, finished, call, leg, agent, key, server, tool, effect, policy, code,
                                  duration_us, size)
    SELECT counted_at, tenant, about = 2, call, coalesce(leg, 0), "left"(agent, 256), "left"(key, 256),
           "left"(server, 256), "left"(tool, 256), effect, policy, code, duration_us, size
      FROM counted WHERE about > 0
), costs AS (
  INSERT INTO metrics.cost_events (time, tenant, call, agent, key, server, tool, calls, usd_micros, input_tokens,
                                   output_tokens, bytes, seconds)
    SELECT counted_at, tenant, call, "left"(agent, 256), "left"(key, 256), "left"(server, 256), "left"(tool, 256),
           cost_calls, cost_usd_micros, cost_input_tokens, cost_output_tokens, cost_bytes, cost_seconds
      FROM counted
      WHERE cost_calls <> 0 OR cost_usd_micros <> 0 OR cost_input_tokens <> 0 OR cost_output_tokens <> 0
         OR cost_bytes <> 0 OR cost_seconds <> 0
), events AS (
  INSERT INTO metrics.events (time, tenant, type, subject, record)
    SELECT counted_at, tenant, "left"(type, 256), "left"(call, 256), id FROM counted WHERE about = 0
)
SELECT place FROM given JOIN fresh USING (row)
""".encode()  # noqa: S608 (names of this module)

_TAKEN = """
SELECT g.place FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[])
       WITH ORDINALITY AS g (chain, seq, id, hash, place)
  LEFT JOIN fulcrum.audit_events AS e ON e.chain = g.chain AND e.seq = g.seq
  WHERE e.hash IS DISTINCT FROM g.hash OR e.id <> g.id
"""
_CHAINS = """
INSERT INTO fulcrum.audit_chains (chain, tenant)
  SELECT * FROM unnest(%b::text[], %b::text[]) AS g (chain, tenant) ORDER BY chain ON CONFLICT DO NOTHING
"""
_INPUTS = """
INSERT INTO fulcrum.call_inputs (record, tenant, time, inputs)
  SELECT * FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bytea[]) AS g (record, tenant, time, inputs)
  ORDER BY record ON CONFLICT DO NOTHING
"""
_ERASE = """
DELETE FROM fulcrum.call_inputs WHERE record IN (
  SELECT record FROM fulcrum.call_inputs WHERE time < %s ORDER BY time LIMIT %s)
"""


class PostgresArchive:
    """An `Archive`; several threads may use one. Its database is closed by whoever made it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store(self, records: Sequence[ArchivedRecord], inputs: Inputs) -> list[DeadLetter]:
        """See `Archive`. `Invalid`, and nothing stored, should one of the records be what no column takes."""
        letters: list[DeadLetter] = []
        rivals: list[ArchivedRecord] = []
        places: dict[tuple[str, int], ArchivedRecord] = {}
        for record in records:
            why = unfit(record)
            if why is not None:
                letters.append(_letter(record, why))
            elif places.setdefault((record.chain, record.seq), record).hash != record.hash:
                rivals.append(record)
        for attempt in range(_TRIES):
            try:
                return self._store(list(places.values()), inputs, letters, rivals)
            except Conflict as exc:
                raise Unavailable(str(exc)) from exc
            except Unavailable as exc:
                if not isinstance(exc.__cause__, _RIVALS) or attempt == _TRIES - 1:
                    raise
        return letters

    def _store(
        self,
        records: list[ArchivedRecord],
        inputs: Inputs,
        letters: list[DeadLetter],
        rivals: list[ArchivedRecord],
    ) -> list[DeadLetter]:
        """`rivals` want a place that one of `records` wants too."""
        with self._database.session("fulcrum_ingest") as connection:
            connection.execute(_ENTER)
            fresh: list[ArchivedRecord] = []
            if records:
                fresh = [records[place - 1] for (place,) in connection.execute(_STORE, columns_of(records)).fetchall()]
            displaced: list[ArchivedRecord] = []
            if rivals or len(fresh) < len(records):
                displaced = self._taken(connection, records + rivals)
            if fresh:
                chains = {record.chain: record.tenant for record in fresh}
                connection.execute(_CHAINS, [list(chains), list(chains.values())])
            _add_inputs(connection, records, fresh, inputs)
            taken = [_letter(record, _TAKEN_WHY) for record in displaced]
            news = dead_letters.keep(connection, letters + taken)[len(letters) :]
            counted = fresh + [record for record, new in zip(displaced, news, strict=True) if new]
            spending.merge(connection, map(plain, counted))
        return letters + taken

    @staticmethod
    def _taken(connection: Session, records: list[ArchivedRecord]) -> list[ArchivedRecord]:
        """The records that are not the one stored in their place, or whose id another one has."""
        asked = [
            [record.chain for record in records],
            [record.seq for record in records],
            [record.id for record in records],
            [bytes.fromhex(record.hash) for record in records],
        ]
        found = connection.execute(_TAKEN, asked).fetchall()
        return [records[place - 1] for (place,) in found]

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """See `Archive`."""
        with self._database.session("fulcrum_ingest") as connection:
            dead_letters.keep(connection, letters)

    def erase_inputs(self, before: int) -> int:
        """See `Archive`; in steps, so that no backlog is too long for one statement."""
        erased = 0
        while True:
            with self._database.session("fulcrum_ingest") as connection:
                found = connection.execute(_ERASE, [held(before), _ERASED]).rowcount
            erased += found
            if found < _ERASED:
                return erased

    def close(self) -> None:
        """See `Archive`."""


def _letter(record: ArchivedRecord, why: str) -> DeadLetter:
    writer = record.chain.partition(".")[0]
    return DeadLetter(writer, f"chain {record.chain} seq {record.seq}: {why}", record.line)


def _add_inputs(
    connection: Session, records: list[ArchivedRecord], fresh: list[ArchivedRecord], inputs: Inputs
) -> None:
    """Inputs of what was stored before are not taken again: they may have been erased since."""
    old = {record.id for record in records} - {record.id for record in fresh}
    rows = [
        (record, clean(tenant), held(time), text)
        for record, tenant, time, text in inputs
        if record not in old and fits_key(record)
    ]
    if rows:
        names, tenants, times, texts = zip(*rows, strict=True)
        connection.execute(
            _INPUTS, [packed("text", names), packed("text", tenants), packed("bigint", times), packed("bytea", texts)]
        )
