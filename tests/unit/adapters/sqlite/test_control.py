import sqlite3
from pathlib import Path

import pytest

from fulcrum_adapters.sqlite.budgets import SqliteBudgets
from fulcrum_adapters.sqlite.config import SqliteConfig
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.control_schema import SCHEMA
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_adapters.sqlite.policies import SqlitePolicies
from fulcrum_adapters.sqlite.switches import SqliteSwitches
from fulcrum_adapters.tables import sqlite_ddl
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey


def test_the_statements_are_those_of_the_one_definition() -> None:
    assert sqlite_ddl() + "\n" == SCHEMA


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    one, other = ControlDatabase(tmp_path / "f.db"), ControlDatabase(tmp_path / "f.db")
    before = SqliteBudgets(one).revision()
    SqliteKeys(other).add(ApiKey("k", "t", "a", "n", (), (), 1))
    assert SqliteBudgets(one).revision() > before
    assert SqliteKeys(one).get("k") is not None
    one.close()
    other.close()


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    database = ControlDatabase(tmp_path / "f.db")
    database.revision()
    assert (tmp_path / "f.db").stat().st_mode & 0o777 == 0o600
    database.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.db").write_bytes(b"not a database" * 100)
    database = ControlDatabase(tmp_path / "f.db")
    with pytest.raises(Unavailable, match=r"f\.db"):
        database.revision()
    database.close()


def test_a_locked_file_is_unavailable_not_a_hang(tmp_path: Path) -> None:
    database = ControlDatabase(tmp_path / "f.db", busy_timeout=0.05)
    database.revision()
    holder = sqlite3.connect(tmp_path / "f.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        SqliteKeys(database).add(ApiKey("k", "t", "a", "n", (), (), 1))
    holder.execute("ROLLBACK")
    holder.close()
    SqliteKeys(database).add(ApiKey("k", "t", "a", "n", (), (), 1))
    database.close()


def test_after_close_it_says_so(tmp_path: Path) -> None:
    database = ControlDatabase(tmp_path / "f.db")
    database.close()
    database.close()
    with pytest.raises(Unavailable, match="closed"):
        database.revision()


_VERSION_1 = """
CREATE TABLE api_keys (id TEXT NOT NULL, tenant TEXT NOT NULL, agent TEXT NOT NULL, name TEXT NOT NULL,
  roles TEXT NOT NULL, scopes TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER,
  require_envelope INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (id)) STRICT;
CREATE INDEX api_keys_tenant ON api_keys (tenant, created_at);
CREATE TABLE budgets (id TEXT NOT NULL, tenant TEXT NOT NULL, name TEXT NOT NULL, scope_kind TEXT NOT NULL,
  scope_id TEXT, limits TEXT NOT NULL, period TEXT NOT NULL, action TEXT NOT NULL, thresholds TEXT NOT NULL,
  timezone TEXT NOT NULL, rate_limit INTEGER, rate_period INTEGER, rate_burst INTEGER,
  PRIMARY KEY (id), UNIQUE (tenant, name)) STRICT;
CREATE TABLE revision (one INTEGER NOT NULL CHECK (one = 1), value INTEGER NOT NULL, PRIMARY KEY (one)) STRICT;
INSERT INTO revision VALUES (1, 41);
INSERT INTO api_keys VALUES ('k', 't', 'a', 'n', '[]', '["admin"]', 1, NULL, NULL, 0, 'd');
INSERT INTO budgets VALUES ('b', 't', 'daily', 'agent', NULL, '{"calls": 3}', 'day', 'hard', '[]', 'UTC',
  NULL, NULL, NULL);
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_version_is_upgraded_where_it_stands(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "f.db")
    old.executescript(_VERSION_1)
    old.close()
    database = ControlDatabase(tmp_path / "f.db")
    config = SqliteConfig(database)
    assert config.revision() == 41
    assert [budget.name for budget in config.read().budgets] == ["daily"]
    key = SqliteKeys(database).get("k")
    assert key is not None
    assert key.scopes == ("admin",)
    SqliteSwitches(database).add(KillSwitch("ks", "t", "agent", "a", "why", "ann", 1))
    SqlitePolicies(database).put(PolicySource((PolicyModule("p.rego", "package p"),)), "ann", 1)
    assert config.read().revision == 43
    database.close()
    again = ControlDatabase(tmp_path / "f.db")
    assert len(SqliteConfig(again).read().switches) == 1
    again.close()
