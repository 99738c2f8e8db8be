"""The tables of `ledger.db`: accounts, arrivals and holds of the ledger, and what policies ask about the past."""

__all__ = ["SCHEMA", "VERSION"]

VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- holds name it; one that was forgotten is never given again
  owner TEXT NOT NULL, budget TEXT NOT NULL, bucket TEXT NOT NULL, amount TEXT NOT NULL, starts INTEGER NOT NULL,
  ends INTEGER NOT NULL,
  committed INTEGER NOT NULL CHECK (committed >= 0),
  reserved INTEGER NOT NULL CHECK (reserved >= 0),
  cap INTEGER NOT NULL, thresholds TEXT NOT NULL, notified INTEGER NOT NULL, warned INTEGER NOT NULL,
  UNIQUE (owner, budget, bucket, amount, starts)
) STRICT;
CREATE INDEX IF NOT EXISTS account_ends ON account (ends) WHERE ends > 0;

CREATE TABLE IF NOT EXISTS arrival (
  owner TEXT NOT NULL, budget TEXT NOT NULL, bucket TEXT NOT NULL,
  at INTEGER NOT NULL, warned INTEGER NOT NULL,
  PRIMARY KEY (owner, budget, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS hold (
  call TEXT NOT NULL, leg INTEGER NOT NULL,
  tenant TEXT NOT NULL, writer TEXT NOT NULL,
  expires INTEGER NOT NULL, state INTEGER NOT NULL, settled_at INTEGER NOT NULL,
  lines TEXT NOT NULL,
  PRIMARY KEY (call, leg)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hold_open ON hold (writer, expires) WHERE state = 0;
CREATE INDEX IF NOT EXISTS hold_settled ON hold (settled_at) WHERE state <> 0;

CREATE TABLE IF NOT EXISTS horizon (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO horizon VALUES (1, 0);

CREATE TABLE IF NOT EXISTS taint (
  tenant TEXT NOT NULL, subject TEXT NOT NULL, label TEXT NOT NULL,
  lasting INTEGER NOT NULL, at INTEGER NOT NULL,
  UNIQUE (tenant, subject, label)
) STRICT;
CREATE INDEX IF NOT EXISTS taint_at ON taint (lasting, at);

CREATE TABLE IF NOT EXISTS tally (
  tenant TEXT NOT NULL, subject TEXT NOT NULL, tool TEXT NOT NULL, slice INTEGER NOT NULL,
  calls INTEGER NOT NULL, lasting INTEGER NOT NULL, at INTEGER NOT NULL,
  UNIQUE (tenant, subject, tool, slice)
) STRICT;
CREATE INDEX IF NOT EXISTS tally_at ON tally (lasting, at)
"""
