"""Which installation this is, and which key its servers and processors have."""

from fulcrum_adapters.postgres.migrations.statements import run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0006"
down_revision = "0005"

_TABLE = """
CREATE TABLE fulcrum.installation (
  one integer PRIMARY KEY DEFAULT 1 CHECK (one = 1),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  key_check text
);
COMMENT ON COLUMN fulcrum.installation.id IS 'made once; a copy of the database has it too';
COMMENT ON COLUMN fulcrum.installation.key_check IS 'tells the key of NATS from another one; NULL: nobody has come yet';
INSERT INTO fulcrum.installation DEFAULT VALUES;
"""

_RIGHTS = """
GRANT SELECT ON fulcrum.installation TO fulcrum_app, fulcrum_gateway, fulcrum_ingest;
GRANT UPDATE (key_check) ON fulcrum.installation TO fulcrum_app, fulcrum_gateway;
ALTER TABLE fulcrum.installation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY known ON fulcrum.installation FOR SELECT TO fulcrum_gateway, fulcrum_ingest USING (true);
-- Whoever comes first says which key it is; the platform alone says another one later.
CREATE POLICY gateway ON fulcrum.installation FOR UPDATE TO fulcrum_gateway
  USING (key_check IS NULL) WITH CHECK (key_check IS NOT NULL);
CREATE POLICY platform ON fulcrum.installation TO fulcrum_app USING (fulcrum.current_tenant() = '');
"""


def upgrade() -> None:
    """From 0005."""
    run(_TABLE)
    run(_RIGHTS)
