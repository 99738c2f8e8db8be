"""The tables of `fulcrum.db`, generated from `fulcrum_adapters.tables`; a test keeps both equal."""

__all__ = ["SCHEMA", "VERSION"]

VERSION = 2

SCHEMA = """\
CREATE TABLE IF NOT EXISTS api_keys (
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  agent TEXT NOT NULL,
  name TEXT NOT NULL,
  roles TEXT NOT NULL,
  scopes TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER,
  require_envelope INTEGER NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (id)
)
 STRICT;
CREATE INDEX IF NOT EXISTS api_keys_tenant ON api_keys (tenant, created_at);
CREATE TABLE IF NOT EXISTS budgets (
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  scope_kind TEXT NOT NULL,
  scope_id TEXT,
  limits TEXT NOT NULL,
  period TEXT NOT NULL,
  action TEXT NOT NULL,
  thresholds TEXT NOT NULL,
  timezone TEXT NOT NULL,
  rate_limit INTEGER,
  rate_period INTEGER,
  rate_burst INTEGER,
  PRIMARY KEY (id),
  UNIQUE (tenant, name)
)
 STRICT;
CREATE TABLE IF NOT EXISTS kill_switches (
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  reason TEXT NOT NULL,
  author TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (tenant, kind, target)
)
 STRICT;
CREATE TABLE IF NOT EXISTS policy_revisions (
  number INTEGER NOT NULL,
  digest TEXT NOT NULL,
  author TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  name TEXT NOT NULL,
  modules TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (number)
)
 STRICT;
CREATE TABLE IF NOT EXISTS revision (
  one INTEGER NOT NULL CHECK (one = 1),
  value INTEGER NOT NULL,
  PRIMARY KEY (one)
)
 STRICT;
"""
