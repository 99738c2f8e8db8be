"""A neighbour in the same database, who may make schemas there."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from postgres_rig import LOGIN, database, login_user
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import state, upgrade
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]


@pytest.fixture
def shared(own_postgres: PostgresServer) -> Iterator[tuple[PostgresConfig, "psycopg.Connection[tuple[object, ...]]"]]:
    """Our user's database, and the neighbour's connection to it."""
    login_user(own_postgres)
    name = database(own_postgres)
    with closing(psycopg.connect(own_postgres.database_url(name), autocommit=True)) as connection:
        connection.execute("CREATE ROLE neighbour LOGIN")
        connection.execute(f"GRANT CREATE ON DATABASE {name} TO neighbour".encode())
    with closing(psycopg.connect(own_postgres.database_url(name, user="neighbour"), autocommit=True)) as neighbour:
        yield PostgresConfig(own_postgres.database_url(name, user=LOGIN), timeout=5), neighbour


@pytest.mark.parametrize("schema", ["fulcrum", "metrics"])
def test_a_schema_that_a_neighbour_made_first_is_not_built_in(
    shared: tuple[PostgresConfig, "psycopg.Connection[tuple[object, ...]]"], schema: str
) -> None:
    config, neighbour = shared
    neighbour.execute(f"CREATE SCHEMA {schema}".encode())
    neighbour.execute(f"GRANT ALL ON SCHEMA {schema} TO PUBLIC".encode())
    with pytest.raises(Unavailable, match=f'schema {schema} belongs to the role "neighbour"'):
        upgrade(config)
    assert state(config).found is None
    neighbour.execute(f"DROP SCHEMA {schema}".encode())
    assert upgrade(config)[1].current


def test_a_schema_that_says_it_is_up_to_date_is_not_believed(
    shared: tuple[PostgresConfig, "psycopg.Connection[tuple[object, ...]]"],
) -> None:
    config, neighbour = shared
    latest = state(config).latest
    neighbour.execute("CREATE SCHEMA fulcrum")
    neighbour.execute("CREATE TABLE fulcrum.schema_revision (version_num text)")
    neighbour.execute(f"INSERT INTO fulcrum.schema_revision VALUES ('{latest}')".encode())
    neighbour.execute("GRANT ALL ON SCHEMA fulcrum TO PUBLIC")
    neighbour.execute("GRANT ALL ON fulcrum.schema_revision TO PUBLIC")
    with pytest.raises(Unavailable, match="neighbour"):
        upgrade(config)


def test_a_neighbour_can_take_nothing_out_of_our_schema(
    shared: tuple[PostgresConfig, "psycopg.Connection[tuple[object, ...]]"],
) -> None:
    config, neighbour = shared
    assert upgrade(config)[1].current
    for statement in (
        "DROP TABLE fulcrum.kill_switches",
        "SELECT * FROM fulcrum.api_keys",
        "SELECT fulcrum.current_tenant()",
        "CREATE TABLE fulcrum.mine ()",
        "SET ROLE fulcrum_app",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            neighbour.execute(statement)
