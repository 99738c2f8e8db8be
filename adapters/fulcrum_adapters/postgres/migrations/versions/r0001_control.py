"""Roles, the schema, and the control plane's tables with row-level security."""

from fulcrum_adapters.postgres.migrations.roles import prepare_roles
from fulcrum_adapters.postgres.migrations.statements import driver, run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None

_SCHEMA = """
GRANT USAGE ON SCHEMA fulcrum TO fulcrum_app, fulcrum_gateway, fulcrum_ingest;

-- Whose rows a session may see: a tenant's, those of no tenant (''), or nobody's (NULL).
CREATE FUNCTION fulcrum.current_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
  RETURN CASE WHEN current_setting('fulcrum.platform', true) = 'on' THEN ''
              ELSE nullif(current_setting('fulcrum.tenant_id', true), '') END;
REVOKE ALL ON FUNCTION fulcrum.current_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fulcrum.current_tenant() TO fulcrum_app, fulcrum_gateway, fulcrum_ingest;
"""

_TABLES = """
CREATE TABLE fulcrum.api_keys (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  agent text NOT NULL,
  name text NOT NULL,
  roles text NOT NULL,
  scopes text NOT NULL,
  created_at bigint NOT NULL,
  expires_at bigint,
  revoked_at bigint,
  require_envelope boolean NOT NULL,
  digest text NOT NULL
);
CREATE INDEX api_keys_tenant ON fulcrum.api_keys (tenant, created_at);

CREATE TABLE fulcrum.budgets (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  name text NOT NULL,
  scope_kind text NOT NULL,
  scope_id text,
  limits text NOT NULL,
  period text NOT NULL,
  action text NOT NULL,
  thresholds text NOT NULL,
  timezone text NOT NULL,
  rate_limit bigint,
  rate_period bigint,
  rate_burst bigint,
  UNIQUE (tenant, name)
);

CREATE TABLE fulcrum.kill_switches (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  kind text NOT NULL,
  target text NOT NULL,
  reason text NOT NULL,
  author text NOT NULL,
  created_at bigint NOT NULL,
  UNIQUE (tenant, kind, target)
);

CREATE TABLE fulcrum.policy_revisions (
  number bigint PRIMARY KEY,
  digest text NOT NULL,
  author text NOT NULL,
  created_at bigint NOT NULL,
  name text NOT NULL,
  modules text NOT NULL,
  data text NOT NULL
);

CREATE TABLE fulcrum.revision (
  one integer PRIMARY KEY CHECK (one = 1),
  value bigint NOT NULL
);
INSERT INTO fulcrum.revision VALUES (1, 1);
"""

_RIGHTS = """
GRANT SELECT, INSERT ON fulcrum.api_keys TO fulcrum_app;
GRANT UPDATE (revoked_at) ON fulcrum.api_keys TO fulcrum_app;
GRANT SELECT, INSERT, DELETE ON fulcrum.budgets, fulcrum.kill_switches TO fulcrum_app;
GRANT SELECT, INSERT ON fulcrum.policy_revisions TO fulcrum_app;
GRANT SELECT ON fulcrum.revision TO fulcrum_app;
GRANT SELECT ON fulcrum.api_keys, fulcrum.budgets, fulcrum.kill_switches, fulcrum.policy_revisions, fulcrum.revision
  TO fulcrum_gateway;
GRANT SELECT ON fulcrum.schema_revision TO fulcrum_app, fulcrum_gateway, fulcrum_ingest;

ALTER TABLE fulcrum.api_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.kill_switches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE fulcrum.policy_revisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant ON fulcrum.api_keys TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY tenant ON fulcrum.budgets TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY tenant ON fulcrum.kill_switches TO fulcrum_app USING (tenant = fulcrum.current_tenant());
CREATE POLICY platform ON fulcrum.policy_revisions TO fulcrum_app USING (fulcrum.current_tenant() = '');

CREATE POLICY gateway ON fulcrum.api_keys FOR SELECT TO fulcrum_gateway USING (true);
CREATE POLICY gateway ON fulcrum.budgets FOR SELECT TO fulcrum_gateway USING (true);
CREATE POLICY gateway ON fulcrum.kill_switches FOR SELECT TO fulcrum_gateway USING (true);
CREATE POLICY gateway ON fulcrum.policy_revisions FOR SELECT TO fulcrum_gateway USING (true);
"""

_REVISION = """
-- Whoever changes the configuration, by whatever means, moves the revision in the same transaction.
CREATE FUNCTION fulcrum.move_revision() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE fulcrum.revision SET value = value + 1;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION fulcrum.move_revision() FROM PUBLIC;

CREATE TRIGGER revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON fulcrum.api_keys
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.move_revision();
CREATE TRIGGER revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON fulcrum.budgets
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.move_revision();
CREATE TRIGGER revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON fulcrum.kill_switches
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.move_revision();
CREATE TRIGGER revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON fulcrum.policy_revisions
  FOR EACH STATEMENT EXECUTE FUNCTION fulcrum.move_revision();
"""


def upgrade() -> None:
    """From nothing."""
    prepare_roles(driver())
    for part in (_SCHEMA, _TABLES, _RIGHTS, _REVISION):
        run(part)
