"""`fulcrum db` as its user meets it, from the checkout."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from postgres_rig import LOGIN, database, login_user, superuser
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig

pytestmark = [pytest.mark.service, pytest.mark.parts]


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    postgres_server.resume()
    postgres_server.start()
    login_user(postgres_server)
    name = database(postgres_server)
    yield postgres_server.database_url(name, user=LOGIN, password="c4nary")
    postgres_server.drop_database(name)


def fulcrum(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}
    ran = subprocess.run(
        [sys.executable, "-m", "fulcrum_mcp.cli", *arguments],
        env={**environment, "FULCRUM_POSTGRES_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "c4nary" not in ran.stdout + ran.stderr
    return ran


def test_upgrade_and_status_say_where_the_schema_is(url: str) -> None:
    ran = fulcrum(url, "db", "status")
    assert (ran.returncode, "schema none" in ran.stdout, "fulcrum db upgrade" in ran.stderr) == (1, True, True)
    ran = fulcrum(url, "db", "upgrade")
    assert (ran.returncode, "it was empty" in ran.stdout) == (0, True), ran.stderr
    first, *steps = [line.split(": ", 1)[1] for line in ran.stderr.splitlines()]
    latest = f"{len(steps):04}"
    assert (first, steps[-1]) == (f"the schema is empty, bringing it to {latest}", f"{latest} is done")
    ran = fulcrum(url, "db", "upgrade")
    assert (ran.returncode, "nothing was changed" in ran.stdout, ran.stderr) == (0, True, "")
    ran = fulcrum(url, "db", "status", "--json")
    assert (ran.returncode, json.loads(ran.stdout)["current"]) == (0, True)


def test_a_newer_schema_and_a_missing_server_are_told_with_a_remedy(url: str) -> None:
    assert fulcrum(url, "db", "upgrade").returncode == 0
    with closing(superuser(PostgresConfig(url.replace(":c4nary", "")))) as connection:
        connection.execute("UPDATE fulcrum.schema_revision SET version_num = 'x9'")
    for command in ("status", "upgrade"):
        ran = fulcrum(url, "db", command)
        assert (ran.returncode, "written by a newer Fulcrum" in ran.stderr) == (3, True)
    ran = fulcrum("postgresql://u:c4nary@127.0.0.1:1/x", "db", "status")
    assert (ran.returncode, "Check that the server runs" in ran.stderr) == (3, True)
    ran = fulcrum("postgresql://u:c4nary/x@127.0.0.1:1/x", "db", "status")
    assert (ran.returncode, "percent-encoded" in ran.stderr) == (2, True)
    ran = fulcrum("", "db", "status")
    assert (ran.returncode, "FULCRUM_POSTGRES_URL" in ran.stderr) == (2, True)
