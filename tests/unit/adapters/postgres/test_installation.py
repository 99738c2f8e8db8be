"""Which installation a database belongs to, and which key it has."""

import threading
from contextlib import closing

import psycopg
import pytest
from postgres_rig import superuser

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database, Role
from fulcrum_adapters.postgres.installation import join, rekey
from fulcrum_mcp.errors import Invalid, Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]


def test_the_id_is_made_once_and_another_database_has_another(
    postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    found = join(postgres_database, "first")
    assert join(postgres_database, "first") == found
    with closing(superuser(postgres_config)) as connection:
        rows = connection.execute("SELECT id::text, made_at < now(), key_check FROM fulcrum.installation").fetchall()
    assert rows == [(found, True, "first")]


def test_another_key_is_refused_with_place_and_remedy_until_it_is_taken_over(postgres_database: Database) -> None:
    found = join(postgres_database, "first")
    with pytest.raises(Invalid, match=r"FULCRUM_AUDIT_MAC_KEY.*fulcrum db rekey") as caught:
        join(postgres_database, "second")
    assert postgres_database.config.place in str(caught.value)
    assert rekey(postgres_database, "second")
    assert not rekey(postgres_database, "second")
    assert join(postgres_database, "second") == found
    with pytest.raises(Invalid):
        join(postgres_database, "first")


def test_of_many_that_come_first_one_says_which_key_it_is(postgres_database: Database) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(6, timeout=20)

    def come(number: int) -> None:
        barrier.wait()
        try:
            join(postgres_database, f"key {number}")
        except Invalid:
            outcomes.append("refused")
        else:
            outcomes.append("joined")

    threads = [threading.Thread(target=come, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["joined"] + ["refused"] * 5


def test_a_row_that_is_gone_is_said(postgres_config: PostgresConfig, postgres_database: Database) -> None:
    with closing(superuser(postgres_config)) as connection:
        connection.execute("DELETE FROM fulcrum.installation")
    with pytest.raises(Unavailable, match="restore it from a backup"):
        join(postgres_database, "first")


@pytest.mark.parametrize("role", ["fulcrum_app", "fulcrum_gateway", "fulcrum_ingest"])
def test_no_role_may_change_or_remove_the_id(postgres_config: PostgresConfig, role: str) -> None:
    for statement in (
        "UPDATE fulcrum.installation SET id = gen_random_uuid()",
        "DELETE FROM fulcrum.installation",
        "INSERT INTO fulcrum.installation DEFAULT VALUES",
    ):
        with closing(superuser(postgres_config)) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_a_gateway_cannot_change_the_key_and_a_tenant_cannot_either(postgres_database: Database) -> None:
    join(postgres_database, "first")
    cases: list[tuple[Role, str | None]] = [("fulcrum_gateway", None), ("fulcrum_app", "acme"), ("fulcrum_app", None)]
    for role, tenant in cases:
        with postgres_database.session(role, tenant) as session:
            assert session.execute("UPDATE fulcrum.installation SET key_check = 'other'").rowcount == 0
    join(postgres_database, "first")
