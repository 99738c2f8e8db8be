"""The budgets that gateways have in files of their own: a lost ledger is rebuilt by one that may not have them."""

from fulcrum_adapters.postgres.migrations.statements import run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0007"
down_revision = "0006"

_TABLE = """
-- A row an amount that a budget limits, in each shape that any gateway ever had. Nothing is removed: what was spent
-- counts again where a file brings a budget back.
CREATE TABLE fulcrum.declared_budgets (
  owner text NOT NULL,
  budget text NOT NULL,
  period text NOT NULL,
  timezone text NOT NULL,
  amount text NOT NULL,
  most bigint NOT NULL,
  thresholds integer[] NOT NULL,
  declared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (owner, budget, period, timezone, amount)
);
COMMENT ON TABLE fulcrum.declared_budgets IS 'Budgets of files, as gateways declared them before they spent on them';
COMMENT ON COLUMN fulcrum.declared_budgets.most IS 'the limit, as it was declared last';
"""

_RIGHTS = """
ALTER TABLE fulcrum.declared_budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY gateway ON fulcrum.declared_budgets TO fulcrum_gateway USING (true);
CREATE POLICY ingest ON fulcrum.declared_budgets FOR SELECT TO fulcrum_ingest USING (true);
GRANT SELECT, INSERT, UPDATE ON fulcrum.declared_budgets TO fulcrum_gateway;
GRANT SELECT ON fulcrum.declared_budgets TO fulcrum_ingest;
"""


def upgrade() -> None:
    """From 0006."""
    run(_TABLE)
    run(_RIGHTS)
