"""Who writes, and what a lost ledger is rebuilt from: open calls, sums by bucket and window, taints, counted calls."""

from fulcrum_adapters.postgres.migrations.statements import run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"

_WRITERS = """
CREATE TABLE fulcrum.writers (
  writer text PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  epoch text,
  heads jsonb NOT NULL DEFAULT '{}',
  retired_at timestamptz
);
COMMENT ON TABLE fulcrum.writers IS 'One gateway''s log each; times by this server''s clock';

-- When any writer was heard last, and the last time for which none was.
CREATE TABLE fulcrum.beats (
  one integer PRIMARY KEY CHECK (one = 1),
  last_at timestamptz NOT NULL,
  silent_from timestamptz NOT NULL,
  silent_until timestamptz NOT NULL
);
INSERT INTO fulcrum.beats VALUES (1, '-infinity', '-infinity', '-infinity');

ALTER TABLE fulcrum.writers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.beats ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON fulcrum.writers TO fulcrum_gateway USING (true);
CREATE POLICY gateway ON fulcrum.beats TO fulcrum_gateway USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON fulcrum.writers TO fulcrum_gateway;
GRANT SELECT, UPDATE ON fulcrum.beats TO fulcrum_gateway;
"""

_SPENDING = """
-- Calls of which only one side is known: what they reserved, or what they were charged. Amounts in the order of
-- core.budget.Amounts; places as [[owner, budget, bucket, starts], ...], tainted as [[label, at], ...].
CREATE TABLE fulcrum.budget_ledger (
  tenant text NOT NULL,
  call text NOT NULL,
  leg integer,
  writer text,
  subject text,
  at bigint NOT NULL,
  places jsonb,
  reserved bigint[] CHECK (cardinality(reserved) = 6),
  charged bigint[] CHECK (cardinality(charged) = 6),
  tainted jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (tenant, call)
);
COMMENT ON COLUMN fulcrum.budget_ledger.at IS 'us since the epoch';

-- What settled calls were charged. Keys are digests: buckets may be named longer than an index takes.
CREATE TABLE fulcrum.budget_spent (
  id bytea PRIMARY KEY,
  series bytea NOT NULL,
  owner text NOT NULL,
  budget text NOT NULL,
  bucket text NOT NULL,
  starts bigint NOT NULL,
  calls numeric NOT NULL,
  usd_micros numeric NOT NULL,
  input_tokens numeric NOT NULL,
  output_tokens numeric NOT NULL,
  bytes numeric NOT NULL,
  seconds numeric NOT NULL,
  touched timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX budget_spent_series ON fulcrum.budget_spent (series);
COMMENT ON COLUMN fulcrum.budget_spent.series IS 'of owner, budget and bucket: all its windows';
COMMENT ON COLUMN fulcrum.budget_spent.starts IS 'begin of the window, ns since the epoch; 0: it never ends';

CREATE TABLE fulcrum.taints (
  id bytea PRIMARY KEY,
  tenant text NOT NULL,
  subject text NOT NULL,
  label text NOT NULL,
  lasting boolean NOT NULL,
  at bigint NOT NULL
);
CREATE INDEX taints_age ON fulcrum.taints (lasting, at);

CREATE TABLE fulcrum.call_counts (
  id bytea PRIMARY KEY,
  tenant text NOT NULL,
  subject text NOT NULL,
  tool text NOT NULL,
  lasting boolean NOT NULL,
  at bigint NOT NULL,
  calls bigint NOT NULL
);
CREATE INDEX call_counts_age ON fulcrum.call_counts (lasting, at);
"""

_TABLES = ("budget_ledger", "budget_spent", "taints", "call_counts")


def upgrade() -> None:
    """From 0001."""
    run(_WRITERS)
    run(_SPENDING)
    for table in _TABLES:
        run(f"""
            ALTER TABLE fulcrum.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
            CREATE POLICY ingest ON fulcrum.{table} TO fulcrum_ingest USING (true);
            CREATE POLICY gateway ON fulcrum.{table} FOR SELECT TO fulcrum_gateway USING (true);
            GRANT SELECT, INSERT, UPDATE, DELETE ON fulcrum.{table} TO fulcrum_ingest;
            GRANT SELECT ON fulcrum.{table} TO fulcrum_gateway;
        """)
