"""The statements of `spending`. Rows are locked in the order of their keys, so that processors wait but never clash."""

from typing import Final, LiteralString

__all__ = ["ADD_CALLS", "ADD_SPENT", "ADD_TAINTS", "COMPLETE", "FORGET", "FORGET_SPENT", "UPSERT"]

UPSERT: Final = """\
INSERT INTO fulcrum.budget_ledger AS known
  (tenant, call, leg, writer, subject, at, places, reserved, charged, tainted)
SELECT tenant, call, leg, writer, subject, at, nullif(places, 'null'), reserved, charged, tainted
FROM jsonb_to_recordset(%s::jsonb) AS said (
  tenant text, call text, leg integer, writer text, subject text, at bigint, places jsonb, reserved bigint[],
  charged bigint[], tainted jsonb)
ORDER BY tenant COLLATE "C", call COLLATE "C"
ON CONFLICT (tenant, call) DO UPDATE SET
  leg = coalesce(known.leg, excluded.leg),
  writer = coalesce(known.writer, excluded.writer),
  subject = coalesce(known.subject, excluded.subject),
  at = CASE WHEN known.places IS NULL AND excluded.places IS NOT NULL THEN excluded.at ELSE known.at END,
  places = coalesce(known.places, excluded.places),
  reserved = coalesce(known.reserved, excluded.reserved),
  charged = coalesce(known.charged, excluded.charged),
  tainted = known.tainted || excluded.tainted
"""

COMPLETE: Final = """\
DELETE FROM fulcrum.budget_ledger AS known
USING jsonb_to_recordset(%s::jsonb) AS said (tenant text, call text)
WHERE known.tenant = said.tenant AND known.call = said.call AND known.places IS NOT NULL AND known.charged IS NOT NULL
RETURNING known.tenant, known.subject, known.places, known.charged, known.tainted
"""

ADD_SPENT: Final = """\
INSERT INTO fulcrum.budget_spent AS known
  (id, series, owner, budget, bucket, starts, calls, usd_micros, input_tokens, output_tokens, bytes, seconds)
SELECT decode(id, 'hex'), decode(series, 'hex'), owner, budget, bucket, starts,
  calls, usd_micros, input_tokens, output_tokens, bytes, seconds
FROM jsonb_to_recordset(%s::jsonb) AS said (
  id text, series text, owner text, budget text, bucket text, starts bigint, calls numeric, usd_micros numeric,
  input_tokens numeric, output_tokens numeric, bytes numeric, seconds numeric)
ORDER BY id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET
  calls = known.calls + excluded.calls,
  usd_micros = known.usd_micros + excluded.usd_micros,
  input_tokens = known.input_tokens + excluded.input_tokens,
  output_tokens = known.output_tokens + excluded.output_tokens,
  bytes = known.bytes + excluded.bytes,
  seconds = known.seconds + excluded.seconds,
  touched = now()
"""

ADD_CALLS: Final = """\
INSERT INTO fulcrum.call_counts AS known (id, tenant, subject, tool, lasting, at, calls)
SELECT decode(id, 'hex'), tenant, subject, tool, lasting, at, calls
FROM jsonb_to_recordset(%s::jsonb) AS said (
  id text, tenant text, subject text, tool text, lasting boolean, at bigint, calls bigint)
ORDER BY id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET calls = known.calls + excluded.calls, at = greatest(known.at, excluded.at)
"""

ADD_TAINTS: Final = """\
INSERT INTO fulcrum.taints AS known (id, tenant, subject, label, lasting, at)
SELECT decode(id, 'hex'), tenant, subject, label, lasting, at
FROM jsonb_to_recordset(%s::jsonb) AS said (id text, tenant text, subject text, label text, lasting boolean, at bigint)
ORDER BY id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET at = excluded.at WHERE known.at < excluded.at
"""

FORGET_SPENT: Final = """\
DELETE FROM fulcrum.budget_spent WHERE id IN (
  SELECT old.id FROM fulcrum.budget_spent AS old
  WHERE old.series = ANY (%s::bytea[]) AND old.starts > 0 AND old.touched < now() - interval '1 day' AND EXISTS (
    SELECT FROM fulcrum.budget_spent AS newer WHERE newer.series = old.series AND newer.starts > old.starts)
    AND (old.touched < now() - interval '400 days' OR (
      SELECT count(DISTINCT (period, timezone)) FROM fulcrum.declared_budgets AS said
      WHERE said.owner = old.owner AND said.budget = old.budget) < 2)
  FOR UPDATE OF old SKIP LOCKED)
"""
"""A window of a bucket has ended once a later one has begun; for a day it may still get what arrives late.

Not so where gateways' files give a budget different periods: a month goes on when another day begins.
"""


def _past(table: LiteralString, lasting: LiteralString, age: LiteralString) -> LiteralString:
    return f"""\
DELETE FROM fulcrum.{table} WHERE id IN (
  SELECT id FROM fulcrum.{table}
  WHERE lasting = {lasting} AND at < ((extract(epoch FROM now()) - %({age})s) * 1000000)::bigint
  LIMIT %(most)s FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 (fixed names)


FORGET: Final[tuple[LiteralString, ...]] = (
    _past("call_counts", "false", "key"),
    _past("call_counts", "true", "envelope"),
    _past("taints", "false", "key"),
    _past("taints", "true", "envelope"),
    """\
DELETE FROM fulcrum.budget_ledger WHERE (tenant, call) IN (
  SELECT tenant, call FROM fulcrum.budget_ledger
  WHERE (places IS NULL OR places = '[]') AND at < ((extract(epoch FROM now()) - %(orphan)s) * 1000000)::bigint
  LIMIT %(most)s FOR UPDATE SKIP LOCKED)
""",
)
