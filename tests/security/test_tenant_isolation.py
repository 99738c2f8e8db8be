"""No tenant reads or writes another's rows in Postgres, whatever tables, views and functions there will be."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from postgres_rig import LOGIN, database, superuser
from servers.postgres import PostgresServer
from tenant_leaks import Session, leaks

from fulcrum_adapters.postgres.config import PostgresConfig

pytestmark = [pytest.mark.service, pytest.mark.parts]

VIEW = """
CREATE VIEW fulcrum.all_keys AS SELECT t.* FROM fulcrum.api_keys AS t;
GRANT SELECT ON fulcrum.all_keys TO fulcrum_app
"""
TELLING = """
CREATE FUNCTION fulcrum.every() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER STABLE
SET search_path = pg_catalog AS 'SELECT name FROM fulcrum.api_keys';
REVOKE ALL ON FUNCTION fulcrum.every() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fulcrum.every() TO fulcrum_app
"""
SHOWN_TO_ALL = """
CREATE POLICY wide ON fulcrum.policy_revisions TO fulcrum_app USING (true);
INSERT INTO fulcrum.policy_revisions VALUES (1, '', '', 1, '', '', '')
"""
HOLES = {
    "a table without a wall": (
        "CREATE TABLE fulcrum.open (tenant text); GRANT SELECT ON fulcrum.open TO fulcrum_app",
        "fulcrum.open shows another tenant's rows",
    ),
    "an unused one": (
        "CREATE TABLE fulcrum.unused (id int)",
        "table fulcrum.unused has no row-level security, or not for its owner",
    ),
    "open to its owner": (
        "ALTER TABLE fulcrum.budgets NO FORCE ROW LEVEL SECURITY",
        "table fulcrum.budgets has no row-level security, or not for its owner",
    ),
    "a view of its owner": (VIEW, "fulcrum.all_keys shows another tenant's rows"),
    "a function that tells": (TELLING, "function fulcrum.every() tells of another tenant"),
    "no search path": (
        "CREATE FUNCTION fulcrum.loose() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
        "function fulcrum.loose() acts as its owner without a search path of its own",
    ),
    "a function of everybody": (
        "CREATE FUNCTION fulcrum.anyone() RETURNS int LANGUAGE sql RETURN 1",
        "function fulcrum.anyone() may be used by everybody",
    ),
    "a table of everybody": (
        "GRANT SELECT ON fulcrum.api_keys TO PUBLIC",
        "relation fulcrum.api_keys is open to everybody",
    ),
    "wide removal": (
        "CREATE POLICY wide ON fulcrum.budgets FOR DELETE TO fulcrum_app USING (true)",
        "a tenant removes another tenant's rows from fulcrum.budgets",
    ),
    "wide addition": (
        "CREATE POLICY wide ON fulcrum.budgets FOR INSERT TO fulcrum_app WITH CHECK (true)",
        "a tenant adds another tenant's rows to fulcrum.budgets",
    ),
    "wide change": (
        "CREATE POLICY wide ON fulcrum.api_keys TO fulcrum_app USING (true)",
        "a tenant changes revoked_at of another tenant's rows in fulcrum.api_keys",
    ),
    "what belongs to no tenant": (SHOWN_TO_ALL, "fulcrum.policy_revisions has no tenant and shows rows"),
}


@pytest.fixture(scope="module")
def everything(postgres_server: PostgresServer, migrated_database: str) -> Iterator[Session]:
    name = database(postgres_server, migrated_database)
    with closing(superuser(PostgresConfig(postgres_server.database_url(name, user=LOGIN)))) as connection:
        yield connection
    postgres_server.drop_database(name)


def test_nothing_of_another_tenant_is_seen_told_or_changed(everything: Session) -> None:
    with everything.transaction(force_rollback=True):
        assert leaks(everything) == []


@pytest.mark.parametrize("hole", HOLES)
def test_the_checker_finds_a_planted_hole(everything: Session, hole: str) -> None:
    planted, said = HOLES[hole]
    with everything.transaction(force_rollback=True):
        everything.execute(planted.encode())
        assert said in leaks(everything)
