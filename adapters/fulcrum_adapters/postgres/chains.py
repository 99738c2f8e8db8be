"""The leader's view of the archive. One that was overtaken while it slept can write nothing."""

from collections.abc import Mapping, Sequence

from fulcrum_adapters.postgres import dead_letters
from fulcrum_adapters.postgres.database import Database, Session
from fulcrum_mcp.core.checkpoint import ChainState, line_hash, open_sealed
from fulcrum_mcp.core.merkle import Frontier
from fulcrum_mcp.errors import Conflict, Invalid, Unavailable
from fulcrum_mcp.ports import Link, StoreBatch, StoreState

__all__ = ["PostgresChains"]

_CHAINS = "SELECT chain, tenant, size, head, frontier, signed, broken FROM fulcrum.audit_chains"
_CHECKPOINTS = """
WITH RECURSIVE found (tenant) AS (
  (SELECT tenant FROM fulcrum.audit_checkpoints ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT (SELECT tenant FROM fulcrum.audit_checkpoints AS c WHERE c.tenant > found.tenant ORDER BY tenant LIMIT 1)
    FROM found WHERE found.tenant IS NOT NULL)
SELECT last.tenant, last.number, last.line FROM found CROSS JOIN LATERAL (
  SELECT c.tenant, c.number, c.line FROM fulcrum.audit_checkpoints AS c
    WHERE c.tenant = found.tenant ORDER BY c.number DESC LIMIT 1) AS last
"""
_SIGNED = "SELECT tenant, number, line FROM fulcrum.audit_checkpoints ORDER BY tenant, number LIMIT 1"
_LINKS = """
WITH asked AS MATERIALIZED (
  SELECT c.chain, c.tenant, coalesce(known.seq, 0) AS above
    FROM fulcrum.audit_chains AS c
    LEFT JOIN unnest(%b::text[], %b::bigint[]) AS known (chain, seq) ON known.chain = c.chain
    WHERE c.chain > %s AND (%s OR c.chain <= %s) AND coalesce(known.seq, 0) < %s
    ORDER BY c.chain)
SELECT asked.chain, asked.tenant, e.seq, e.prev, e.hash FROM asked CROSS JOIN LATERAL (
    SELECT seq, prev, hash FROM fulcrum.audit_events AS e
      WHERE e.chain = asked.chain AND e.seq > asked.above ORDER BY e.seq LIMIT %s) AS e
  LIMIT %s
"""  # chains in their order, one after the other: what it costs is one look into an index for each
_EXTEND = """
INSERT INTO fulcrum.audit_chains AS known (chain, tenant, size, head, frontier, signed, broken)
  SELECT * FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::bytea[], %b::bigint[], %b::text[])
    AS said (chain, tenant, size, head, frontier, signed, broken) ORDER BY chain
  ON CONFLICT (chain) DO UPDATE SET size = excluded.size, head = excluded.head, frontier = excluded.frontier,
      signed = excluded.signed, broken = coalesce(known.broken, excluded.broken)
    WHERE known.size <= excluded.size AND known.signed <= excluded.signed
"""
_SIGN = """
INSERT INTO fulcrum.audit_checkpoints (tenant, number, line)
  SELECT * FROM unnest(%b::text[], %b::bigint[], %b::bytea[]) AS said (tenant, number, line) ORDER BY tenant, number
"""
_NO_SEQ = 1 << 60
"""Nothing is stored above it: such a chain is not looked at."""


class PostgresChains:
    """`Chains`; used by one thread. Its database is closed by whoever made it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._place = database.config.place
        self._after = ""
        """The chain where the last answer was cut off; the next one begins behind it."""

    def load(self) -> StoreState:
        """See `Chains`."""
        state = StoreState({}, {}, {}, {})
        with self._database.session("fulcrum_ingest", snapshot=True) as connection:
            for name, tenant, size, head, frontier, signed, broken in connection.execute(_CHAINS):
                try:
                    tree = Frontier(size, frontier)
                except ValueError as exc:
                    raise Unavailable(f"postgres {self._place}: audit_chains is damaged: chain {name}: {exc}") from exc
                state.chains[name] = ChainState(name, tenant, head, tree, signed)
                if broken:
                    state.broken[name] = broken
            for tenant, number, line in connection.execute(_CHECKPOINTS):
                state.checkpoints[tenant] = (number, line_hash(line))
        return state

    def signer(self) -> str | None:
        """See `Chains`."""
        with self._database.session("fulcrum_ingest") as connection:
            found = connection.execute(_SIGNED).fetchone()
        if found is None:
            return None
        tenant, number, line = found
        sealed = open_sealed(line)
        if sealed is None:
            raise Unavailable(
                f"postgres {self._place}: checkpoint {number} of tenant {tenant!r} is damaged; restore the database "
                "from a backup"
            )
        return str(sealed.fields.get("key"))

    def links(self, above: Mapping[str, int], most: int) -> Sequence[Link]:
        """See `Chains`; in turns, so that a chain that waits for a missing record does not hold up the others."""
        with self._database.session("fulcrum_ingest", snapshot=True) as connection:
            found = _links(connection, above, most, self._after, None)
            if self._after and len(found) < most:
                found += _links(connection, above, most - len(found), "", self._after)
        self._after = found[-1].chain if len(found) == most else ""
        return sorted(found)

    def add(self, batch: StoreBatch) -> None:
        """See `Chains`."""
        try:
            with self._database.session("fulcrum_ingest") as connection:
                self._add(connection, batch)
        except Conflict as exc:
            raise Unavailable(f"{exc} Another processor signs this trail: begin anew.") from exc
        except Invalid as exc:
            raise Unavailable(str(exc)) from exc

    def _add(self, connection: Session, batch: StoreBatch) -> None:
        states = list(batch.chains.values())
        if states:
            columns = (
                [state.chain for state in states],
                [state.tenant for state in states],
                [state.size for state in states],
                [state.head for state in states],
                [state.tree.pack() for state in states],
                [state.signed for state in states],
                [batch.broken.get(state.chain) for state in states],
            )
            if connection.execute(_EXTEND, columns).rowcount != len(states):
                raise Unavailable(
                    f"postgres {self._place}: another processor has gone further in this trail; begin anew."
                )
        if batch.checkpoints:
            connection.execute(_SIGN, [list(column) for column in zip(*batch.checkpoints, strict=True)])
        dead_letters.keep(connection, batch.faults)

    def close(self) -> None:
        """See `Chains`."""


def _links(connection: Session, above: Mapping[str, int], most: int, after: str, upto: str | None) -> list[Link]:
    limits = [list(above), list(above.values()), after, upto is None, upto or "", _NO_SEQ, most, most]
    rows = connection.execute(_LINKS, limits).fetchall()
    return [Link(chain, tenant, seq, prev.hex(), digest.hex()) for chain, tenant, seq, prev, digest in rows]
