"""The audit trail: records as they were written, what lies beside them, chains, checkpoints, what could not be read."""

from fulcrum_adapters.postgres.migrations.statements import run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0003"
down_revision = "0002"

_TABLES = """
CREATE SEQUENCE fulcrum.audit_rows AS bigint;

CREATE TABLE fulcrum.audit_events (
  row bigint NOT NULL,                -- in order of arrival; see audit_settled()
  chain text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  time bigint NOT NULL,               -- microseconds since the epoch
  prev bytea NOT NULL,
  hash bytea NOT NULL,
  call text COLLATE "C" NOT NULL,     -- the subject
  leg bigint,
  decision text COLLATE "C",
  agent text COLLATE "C",
  key text COLLATE "C",
  server text COLLATE "C",
  tool text COLLATE "C",
  name text COLLATE "C",              -- the first 128 characters of <server>__<tool>
  effect text COLLATE "C",            -- of a decision, or the outcome
  policy text COLLATE "C",
  code text COLLATE "C",
  line bytea NOT NULL,                -- the record's exact bytes
  PRIMARY KEY (chain, seq)
);
ALTER SEQUENCE fulcrum.audit_rows OWNED BY fulcrum.audit_events.row;
CREATE UNIQUE INDEX audit_events_id ON fulcrum.audit_events (id);
CREATE UNIQUE INDEX audit_events_row ON fulcrum.audit_events (row);
CREATE INDEX audit_events_tenant ON fulcrum.audit_events (tenant, row);
CREATE INDEX audit_events_time ON fulcrum.audit_events (tenant, time);
CREATE INDEX audit_events_call ON fulcrum.audit_events (call);
CREATE INDEX audit_events_decision ON fulcrum.audit_events (decision) WHERE decision IS NOT NULL;
CREATE INDEX audit_events_name ON fulcrum.audit_events (tenant, name, row) WHERE name IS NOT NULL;

CREATE TABLE fulcrum.call_inputs (
  record text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  time bigint NOT NULL,               -- microseconds since the epoch
  inputs bytea NOT NULL
);
CREATE INDEX call_inputs_time ON fulcrum.call_inputs (time);
CREATE INDEX call_inputs_tenant ON fulcrum.call_inputs (tenant);

CREATE TABLE fulcrum.audit_chains (
  chain text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  size bigint NOT NULL DEFAULT 0,     -- contiguous and checked
  head text NOT NULL DEFAULT repeat('0', 64),
  frontier bytea NOT NULL DEFAULT '',
  signed bigint NOT NULL DEFAULT 0,
  broken text
);
CREATE INDEX audit_chains_tenant ON fulcrum.audit_chains (tenant, chain);

CREATE TABLE fulcrum.audit_checkpoints (
  tenant text COLLATE "C" NOT NULL,
  number bigint NOT NULL,
  line bytea NOT NULL,
  PRIMARY KEY (tenant, number)
);

CREATE TABLE fulcrum.audit_faults (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text NOT NULL,
  what text NOT NULL,
  body bytea NOT NULL,
  digest bytea NOT NULL UNIQUE,       -- SHA-256 over source and body
  at timestamptz NOT NULL DEFAULT now()
);
"""

_APPEND_ONLY = """
CREATE FUNCTION fulcrum.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '%.% is append-only: what was recorded is neither changed nor removed', TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
REVOKE ALL ON FUNCTION fulcrum.refuse_change() FROM PUBLIC;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fulcrum.audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fulcrum.audit_checkpoints
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fulcrum.audit_faults
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.refuse_change();
ALTER TABLE fulcrum.audit_events ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE fulcrum.audit_checkpoints ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE fulcrum.audit_faults ENABLE ALWAYS TRIGGER append_only;
"""

_ARRIVAL = """
-- Numbers are given before rows are committed, so a higher number may be seen before a lower one. Whoever stores rows
-- first says, by a shared advisory lock that ends with the transaction, above which number its own will stand;
-- whoever reads in order of arrival stays at or below the lowest of those, and so never passes over a row.
-- The lock's key is 0x4655 (16 bits) and the number (48 bits).
CREATE FUNCTION fulcrum.audit_enter() RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(
    18005::bigint << 48 | coalesce(pg_sequence_last_value('fulcrum.audit_rows'::regclass), 0));
END $$;

-- Every row up to this number that will ever be seen, is seen by the transaction's next statement. The highest number
-- must be read first, then the locks, then (by that statement) the rows.
CREATE FUNCTION fulcrum.audit_settled() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  given bigint := coalesce(pg_sequence_last_value('fulcrum.audit_rows'::regclass), 0);
  storing bigint;
BEGIN
  SELECT min((classid::bigint & 65535) << 32 | objid::bigint) INTO storing FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 18005 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
  RETURN least(given, storing);
END $$;

REVOKE ALL ON FUNCTION fulcrum.audit_enter(), fulcrum.audit_settled() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fulcrum.audit_enter() TO fulcrum_ingest;
GRANT EXECUTE ON FUNCTION fulcrum.audit_settled() TO fulcrum_app, fulcrum_ingest;
"""

_RIGHTS = """
GRANT USAGE ON SEQUENCE fulcrum.audit_rows TO fulcrum_ingest;
GRANT SELECT, INSERT ON fulcrum.audit_events, fulcrum.audit_checkpoints, fulcrum.audit_faults TO fulcrum_ingest;
GRANT SELECT, INSERT, DELETE ON fulcrum.call_inputs TO fulcrum_ingest;
GRANT SELECT, INSERT, UPDATE ON fulcrum.audit_chains TO fulcrum_ingest;
GRANT SELECT ON fulcrum.audit_events, fulcrum.call_inputs, fulcrum.audit_chains, fulcrum.audit_checkpoints
  TO fulcrum_app;
GRANT SELECT (chain, size) ON fulcrum.audit_chains TO fulcrum_gateway;  -- how far the store has what it wrote

ALTER TABLE fulcrum.audit_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.call_inputs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.audit_chains ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.audit_checkpoints ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.audit_faults ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant ON fulcrum.audit_events FOR SELECT TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY tenant ON fulcrum.call_inputs FOR SELECT TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY tenant ON fulcrum.audit_chains FOR SELECT TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY tenant ON fulcrum.audit_checkpoints FOR SELECT TO fulcrum_app USING (tenant = fulcrum.current_tenant());

CREATE POLICY gateway ON fulcrum.audit_chains FOR SELECT TO fulcrum_gateway USING (true);

CREATE POLICY ingest ON fulcrum.audit_events TO fulcrum_ingest USING (true);
CREATE POLICY ingest ON fulcrum.call_inputs TO fulcrum_ingest USING (true);
CREATE POLICY ingest ON fulcrum.audit_chains TO fulcrum_ingest USING (true);
CREATE POLICY ingest ON fulcrum.audit_checkpoints TO fulcrum_ingest USING (true);
CREATE POLICY ingest ON fulcrum.audit_faults TO fulcrum_ingest USING (true);
"""


def upgrade() -> None:
    """From 0002."""
    for part in (_TABLES, _APPEND_ONLY, _ARRIVAL, _RIGHTS):
        run(part)
