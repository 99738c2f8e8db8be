"""The map's schemas, tables, views and roles are those of a database that the migrations have made."""

import psycopg
import pytest
from postgres_rig import LOGIN
from truths import ROOT, tables_of

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import upgrade

pytestmark = [pytest.mark.service, pytest.mark.parts]

MAP = tables_of((ROOT / "docs" / "TRUTH_MAP.md").read_text())
RELATIONS = """
SELECT n.nspname || '.' || c.relname, c.relkind IN ('v', 'm')
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


def names(heading: str) -> set[str]:
    return {next(iter(row.values())) for row in MAP[heading]}


def test_migrated_database_holds_what_the_map_says_and_nothing_else(postgres_url: str) -> None:
    upgrade(PostgresConfig(postgres_url))
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(RELATIONS).fetchall()
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace"
            " WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')"
        ).fetchall()
        roles = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^fulcrum_'").fetchall()
    assert {name for name, view in found if not view} == names("Tables")
    assert {name for name, view in found if view} == names("Views")
    assert {name for (name,) in schemas} == names("Schemas")
    assert {name for (name,) in roles} - {LOGIN} == names("Roles")
