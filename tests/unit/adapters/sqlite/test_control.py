import sqlite3
from pathlib import Path

import pytest

from fulcrum_adapters.sqlite.budgets import SqliteBudgets
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.control_schema import SCHEMA
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_adapters.tables import sqlite_ddl
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
