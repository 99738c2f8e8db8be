"""Who takes over from a gateway that died without a spool, and what it must read of the trail for that."""

from fulcrum_adapters.postgres.migrations.statements import run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0005"
down_revision = "0004"

_WRITERS = """
ALTER TABLE fulcrum.writers
  ADD COLUMN streamed boolean NOT NULL DEFAULT false,
  ADD COLUMN taken_by text,
  ADD COLUMN taken_at timestamptz,
  ADD COLUMN done_at timestamptz;
CREATE INDEX writers_undone ON fulcrum.writers (seen_at) WHERE streamed AND done_at IS NULL;
COMMENT ON COLUMN fulcrum.writers.streamed IS 'it has no spool: nobody but another gateway can finish its calls';
COMMENT ON COLUMN fulcrum.writers.taken_by IS 'the writer that finishes its calls; from then on it must not write';
COMMENT ON COLUMN fulcrum.writers.done_at IS 'when every call of it had an end in the store';
"""

_RIGHTS = """
-- Records, not what people read of calls: that lies in call_inputs.
GRANT SELECT (chain, seq, tenant, type, call, leg, effect, line) ON fulcrum.audit_events TO fulcrum_gateway;
CREATE POLICY gateway ON fulcrum.audit_events FOR SELECT TO fulcrum_gateway USING (true);
"""


def upgrade() -> None:
    """From 0004."""
    run(_WRITERS)
    run(_RIGHTS)
