"""Which gateways write, how far the store has what they wrote, and the books that a lost ledger is rebuilt from.

Times are this server's: a writer is dead when it was not heard for a minute. A time in which nobody was heard was an
outage of the server or of the way to it, and counts for nobody.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_adapters.postgres.spending import ENVELOPE_KEPT, KEY_WINDOW
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.books import Books, Past, Place, Spent, Unsettled
from fulcrum_mcp.core.budget import Amounts, Budget, Scope
from fulcrum_mcp.core.window import window_at

__all__ = ["TOUCH", "PostgresWriters"]

SECOND = 1_000_000_000
_MICRO = 1_000
_PATIENCE: Final = 60.0
"""Seconds that the books may take."""
_SINGLE: Final = 86_400 * SECOND
"""Unsettled calls older than that are not told one by one."""

TOUCH = """\
UPDATE fulcrum.beats SET
  silent_from = CASE WHEN last_at < clock_timestamp() - interval '20 s' THEN last_at ELSE silent_from END,
  silent_until = CASE WHEN last_at < clock_timestamp() - interval '20 s' THEN clock_timestamp() ELSE silent_until END,
  last_at = clock_timestamp()
"""
_BEAT = """\
INSERT INTO fulcrum.writers AS known (writer, seen_at, streamed) VALUES (%s, clock_timestamp(), %s)
ON CONFLICT (writer) DO UPDATE SET seen_at = excluded.seen_at, streamed = excluded.streamed
WHERE known.taken_by IS NULL
"""
_DECLARE = """\
INSERT INTO fulcrum.writers AS known (writer, seen_at, epoch, heads) VALUES (%s, clock_timestamp(), %s, %s)
ON CONFLICT (writer) DO UPDATE SET
  seen_at = excluded.seen_at, epoch = excluded.epoch, heads = excluded.heads, retired_at = NULL
WHERE known.taken_by IS NULL
"""
_DECLARE_BUDGETS = """\
INSERT INTO fulcrum.declared_budgets (owner, budget, period, timezone, amount, most, thresholds)
SELECT owner, budget, period, timezone, amount, most, thresholds FROM jsonb_to_recordset(%s) AS said (
  owner text, budget text, period text, timezone text, amount text, most bigint, thresholds integer[])
ORDER BY owner COLLATE "C", budget COLLATE "C", period, timezone, amount
ON CONFLICT (owner, budget, period, timezone, amount) DO UPDATE SET
  most = excluded.most, thresholds = excluded.thresholds, declared_at = excluded.declared_at
"""
_DECLARED = """\
SELECT owner, budget, period, timezone, jsonb_object_agg(amount, most ORDER BY amount),
  (array_agg(to_jsonb(thresholds) ORDER BY declared_at DESC))[1]
FROM fulcrum.declared_budgets GROUP BY owner, budget, period, timezone ORDER BY owner, budget, max(declared_at) DESC
"""
_RETIRE = "UPDATE fulcrum.writers SET retired_at = clock_timestamp() WHERE writer = %s AND retired_at IS NULL"
_SWEEP = """\
DELETE FROM fulcrum.writers WHERE CASE WHEN streamed THEN done_at < clock_timestamp() - interval '90 days'
  ELSE seen_at < clock_timestamp() - interval '7 days' END
"""

_ALIVE = """\
SELECT writer, epoch, heads FROM fulcrum.writers, fulcrum.beats
WHERE retired_at IS NULL AND taken_by IS NULL AND (
  seen_at > clock_timestamp() - interval '60 s'
  OR (silent_until > clock_timestamp() - interval '60 s' AND seen_at > silent_from - interval '60 s'))
"""
_UNDECLARED = f"""\
SELECT writer FROM ({_ALIVE}) AS alive WHERE epoch IS DISTINCT FROM %s ORDER BY writer
"""  # noqa: S608 (fixed text)
_BEHIND = f"""\
SELECT head.key, coalesce(stored.size, 0), head.value::bigint
FROM ({_ALIVE}) AS alive, jsonb_each_text(alive.heads) AS head
LEFT JOIN fulcrum.audit_chains AS stored ON stored.chain = head.key
WHERE alive.epoch = %s AND coalesce(stored.size, 0) < head.value::bigint
ORDER BY head.key
"""  # noqa: S608 (fixed text)

_WHOLE = "SELECT count(*) FROM fulcrum.audit_events WHERE chain = %s AND seq > %s AND seq <= %s"
_STEP: Final = 250_000
"""Records counted at one look."""

_FITS = """\
EXISTS (
  SELECT FROM unnest(%(owners)s::text[], %(budgets)s::text[], %(starts)s::bigint[]) AS wanted (owner, budget, starts)
  WHERE wanted.owner = {0} AND wanted.budget = {1}
    AND ({2} = wanted.starts OR wanted.starts > 0 AND {2} > %(now)s::bigint))"""
"""Whatever the number of shapes that a budget has, a place counts once."""
_NAMES = Amounts._fields
_SPENT = f"""\
SELECT spent.owner, spent.budget, spent.bucket, spent.starts,
  {", ".join(f"least(spent.{name}, {MAX_AMOUNT})::bigint" for name in _NAMES)}
FROM fulcrum.budget_spent AS spent WHERE {_FITS.format("spent.owner", "spent.budget", "spent.starts")}
"""  # noqa: S608 (fixed text)
_PLACE = f"""\
FROM fulcrum.budget_ledger AS open, jsonb_array_elements(open.places) AS place
WHERE open.charged IS NULL AND {_FITS.format("place->>0", "place->>1", "(place->>3)::bigint")}
"""
_OLD = f"""\
SELECT place->>0, place->>1, place->>2, (place->>3)::bigint,
  {", ".join(f"least(sum(reserved[{place}]), {MAX_AMOUNT})::bigint" for place in range(1, len(_NAMES) + 1))}
{_PLACE} AND open.at < %(since)s GROUP BY 1, 2, 3, 4
"""
_OPEN = f"""\
SELECT open.call, open.leg, open.tenant, open.writer, open.reserved, jsonb_agg(place)
{_PLACE} AND open.at >= %(since)s GROUP BY open.tenant, open.call
"""
_TAINTS = """\
SELECT tenant, subject, label, max(at) FROM (
  SELECT tenant, subject, label, at FROM fulcrum.taints
  UNION ALL
  SELECT tenant, subject, taint->>0, (taint->>1)::bigint
  FROM fulcrum.budget_ledger, jsonb_array_elements(tainted) AS taint WHERE subject IS NOT NULL
) AS said
WHERE at > CASE WHEN subject LIKE 'key:%%' THEN %(key)s ELSE %(envelope)s END
GROUP BY tenant, subject, label
"""
_CALLS = """\
SELECT tenant, subject, tool, calls, at FROM fulcrum.call_counts
WHERE at > CASE WHEN lasting THEN %(envelope)s ELSE %(key)s END
"""


class PostgresWriters:
    """`WriterRegistry` on a `Database`; its own clock counts, so `at` of beats is not used."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._epoch = ""
        self._whole: dict[str, int] = {}
        """Up to where a chain was found to be stored without a gap, in this epoch."""

    def beat(self, writer: str, at: int, *, streamed: bool = False) -> bool:
        """See `WriterRegistry`."""
        del at
        with self._database.session("fulcrum_gateway") as session:
            session.execute(TOUCH)
            return session.execute(_BEAT, (writer, streamed)).rowcount == 1

    def declare(
        self, writer: str, epoch: str, heads: Mapping[str, int], at: int, budgets: Sequence[Budget] = ()
    ) -> None:
        """See `WriterRegistry`."""
        del at
        with self._database.session("fulcrum_gateway") as session:
            session.execute(TOUCH)
            session.execute(_DECLARE, (writer, epoch, Jsonb(dict(heads))))
            session.execute(_DECLARE_BUDGETS, (Jsonb([row for budget in budgets for row in _declaration(budget)]),))
            session.execute(_SWEEP)

    def declared(self) -> Sequence[Budget]:
        """See `WriterRegistry`."""
        with self._database.session("fulcrum_gateway") as session:
            rows = session.execute(_DECLARED).fetchall()
        return tuple(
            [
                Budget(budget, owner, budget, Scope("global"), limits, period, "hard", tuple(thresholds), timezone)
                for owner, budget, period, timezone, limits, thresholds in rows
            ]
        )

    def retire(self, writer: str) -> None:
        """See `WriterRegistry`."""
        with self._database.session("fulcrum_gateway") as session:
            session.execute(_RETIRE, (writer,))

    def missing(self, epoch: str, at: int) -> Sequence[str]:
        """See `WriterRegistry`. A chain that is broken, or not checked yet, is stored as far as it has no gap."""
        del at
        if epoch != self._epoch:
            self._epoch, self._whole = epoch, {}
        with self._database.session("fulcrum_gateway") as session:
            session.execute(TOUCH)
            undeclared = session.execute(_UNDECLARED, (epoch,)).fetchall()
            behind = session.execute(_BEHIND, (epoch,)).fetchall()
            stored = {chain: self._stored(session, chain, size, seq) for chain, size, seq in behind}
        return [
            *(f"writer {writer} has not said where its chains stand" for (writer,) in undeclared),
            *(
                f"chain {chain} is stored up to {stored[chain]} of {seq}"
                for chain, _, seq in behind
                if stored[chain] < seq
            ),
        ]

    def _stored(self, session: Session, chain: str, size: int, seq: int) -> int:
        """Up to where the store has every record, checked or not; what was once seen is not counted again."""
        known = max(size, self._whole.get(chain, 0))
        upto = min(seq, known + _STEP)
        if session.execute(_WHOLE, (chain, known, upto)).fetchone() == (upto - known,):
            self._whole[chain] = known = upto
        return known

    def books(self, budgets: Sequence[Budget], at: int) -> Books:
        """See `WriterRegistry`. Windows as they are at `at`, and later ones where a clock was ahead."""
        limited = [budget for budget in budgets if budget.limits]
        wanted: dict[str, Any] = {
            "owners": [budget.tenant for budget in limited],
            "budgets": [budget.id for budget in limited],
            "starts": [window_at(budget.period, budget.timezone, at).start for budget in limited],
            "now": at,
            "since": (at - _SINGLE) // _MICRO,
        }
        with self._database.session("fulcrum_gateway", snapshot=True, timeout=_PATIENCE) as session:
            rows = [
                *session.execute(_SPENT.encode(), wanted).fetchall(),
                *session.execute(_OLD.encode(), wanted).fetchall(),
            ]
            opened = session.execute(_OPEN, wanted).fetchall()
            past = _past(session, at)
            recorded = session.execute("SELECT EXISTS (SELECT chain FROM fulcrum.audit_chains)").fetchone()
        spent = tuple([Spent(Place(*row[:4]), _amounts(row[4:])) for row in rows])
        unsettled = tuple(
            [
                Unsettled(call, leg, tenant, writer, _amounts(reserved), tuple([Place(*place) for place in places]))
                for call, leg, tenant, writer, reserved, places in opened
            ]
        )
        return Books(at, spent, unsettled, past, beginning=recorded == (False,))


def _past(session: Session, at: int) -> Past:
    since = {
        "key": (at - KEY_WINDOW * SECOND) // _MICRO,
        "envelope": (at - ENVELOPE_KEPT * SECOND) // _MICRO,
    }
    taints = session.execute(_TAINTS, since).fetchall()
    calls = session.execute(_CALLS, since).fetchall()
    return Past(
        tuple([(tenant, subject, label, last * _MICRO) for tenant, subject, label, last in taints]),
        tuple([(tenant, subject, tool, count, last * _MICRO) for tenant, subject, tool, count, last in calls]),
    )


def _declaration(budget: Budget) -> Iterator[dict[str, Any]]:
    for amount, most in budget.limits.items():
        yield {
            "owner": budget.tenant,
            "budget": budget.id,
            "period": budget.period,
            "timezone": budget.timezone,
            "amount": amount,
            "most": most,
            "thresholds": list(budget.thresholds),
        }


def _amounts(values: Sequence[Any]) -> Amounts:
    return Amounts(*[min(value, MAX_AMOUNT) for value in values])
