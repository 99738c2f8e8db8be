"""Taking over from gateways that died without a spool: their rows are tombstones, which their owners find too late.

A writer that was taken cannot say any more that it lives, so whoever it belongs to learns of it with its next sign of
life. What a taker took goes on to another one only when the taker is itself taken, or has ended.
"""

from typing import Any, Final

from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.writers import TOUCH
from fulcrum_mcp.core.audit import parse_record
from fulcrum_mcp.ports import OpenCall, OpenPage, StoredPlace

__all__ = ["PostgresTakeover"]

_PATIENCE: Final = 30.0
"""Seconds that one page may take."""
_PAGE: Final = 5_000
"""Records looked at in one transaction."""

_CLAIM = """\
UPDATE fulcrum.writers SET taken_by = %(taker)s, taken_at = clock_timestamp()
WHERE writer = (
  SELECT dead.writer FROM fulcrum.beats, fulcrum.writers AS dead
    LEFT JOIN fulcrum.writers AS taker ON taker.writer = dead.taken_by
  WHERE dead.streamed AND dead.done_at IS NULL
    AND dead.seen_at < clock_timestamp() - interval '60 s' - make_interval(secs => %(oldest)s)
    AND (dead.retired_at IS NOT NULL OR dead.taken_by IS NOT NULL OR NOT (
      silent_until > clock_timestamp() - interval '60 s' AND dead.seen_at > silent_from - interval '60 s'))
    AND (taker.writer IS NULL OR (
      (taker.taken_by IS NOT NULL OR taker.retired_at IS NOT NULL)
      AND taker.seen_at < clock_timestamp() - interval '60 s' - make_interval(secs => %(oldest)s)))
  ORDER BY dead.seen_at LIMIT 1 FOR UPDATE OF dead SKIP LOCKED)
AND EXISTS (
  SELECT FROM fulcrum.writers AS me WHERE me.writer = %(taker)s AND me.taken_by IS NULL AND me.retired_at IS NULL
    AND me.seen_at > clock_timestamp() - interval '30 s')
RETURNING writer
"""
_DONE = "UPDATE fulcrum.writers SET done_at = clock_timestamp() WHERE writer = %s AND taken_by = %s AND done_at IS NULL"

_LAST = """\
SELECT chain, seq FROM (
  SELECT chain, seq FROM fulcrum.audit_events WHERE (chain, seq) > (%(chain)s, %(seq)s) AND chain < %(end)s
  ORDER BY chain, seq LIMIT %(most)s) AS page
ORDER BY chain DESC, seq DESC LIMIT 1
"""
_OPEN = """\
SELECT let.chain, let.seq, let.tenant, let.call, coalesce(let.leg, 0), let.line FROM fulcrum.audit_events AS let
WHERE (let.chain, let.seq) > (%(chain)s, %(seq)s) AND (let.chain, let.seq) <= (%(to_chain)s, %(to_seq)s)
  AND let.type = 'dev.fulcrum.tool_call.decided' AND let.effect = 'allow'
  AND NOT EXISTS (
    SELECT FROM fulcrum.audit_events AS ended WHERE ended.call = let.call AND ended.tenant = let.tenant
      AND ended.type = 'dev.fulcrum.tool_call.finished' AND coalesce(ended.leg, 0) = coalesce(let.leg, 0))
ORDER BY let.chain, let.seq
"""


class PostgresTakeover:
    """`Takeover` on a `Database`; its own clock counts, so `at` is not used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, taker: str, at: int, oldest: float) -> str | None:
        """See `Takeover`."""
        del at
        with self._database.session("fulcrum_gateway") as session:
            session.execute(TOUCH)
            row = session.execute(_CLAIM, {"taker": taker, "oldest": oldest}).fetchone()
        return None if row is None else str(row[0])

    def unfinished(self, writer: str, after: StoredPlace | None) -> OpenPage:
        """See `Takeover`."""
        begin = StoredPlace(f"{writer}.", 0) if after is None else after
        place: dict[str, Any] = {**begin._asdict(), "end": f"{writer}/", "most": _PAGE}
        with self._database.session("fulcrum_gateway", snapshot=True, timeout=_PATIENCE) as session:
            last = session.execute(_LAST, place).fetchone()
            if last is None:
                return OpenPage((), None)
            place |= {"to_chain": last[0], "to_seq": last[1]}
            rows = session.execute(_OPEN, place).fetchall()
        calls = [
            (StoredPlace(chain, seq), OpenCall(call, leg, tenant, _data(line)))
            for chain, seq, tenant, call, leg, line in rows
        ]
        return OpenPage(calls, StoredPlace(*last))

    def done(self, taker: str, writer: str) -> None:
        """See `Takeover`."""
        with self._database.session("fulcrum_gateway") as session:
            session.execute(_DONE, (writer, taker))


def _data(line: bytes) -> bytes:
    """The `data` member of a stored record: its bytes were checked before they were stored."""
    head = parse_record(line)
    return b"{}" if head is None else line[slice(*head.data)]
