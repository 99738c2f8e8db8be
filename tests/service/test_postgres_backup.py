"""A dump of the database, restored into another one, is the installation as it was."""

import subprocess
from contextlib import closing

import pytest
from postgres_rig import LOGIN, database
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.configuration import PostgresConfiguration
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.keys import PostgresKeys
from fulcrum_adapters.postgres.switches import PostgresSwitches
from fulcrum_adapters.postgres.upgrade import check
from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch
from fulcrum_mcp.ports import ApiKey

pytestmark = [pytest.mark.service, pytest.mark.parts]


def test_a_dump_by_a_superuser_restores_everything_and_one_by_the_owner_is_refused(
    postgres_server: PostgresServer, postgres_config: PostgresConfig, postgres_database: Database
) -> None:
    PostgresKeys(postgres_database).add(ApiKey("k1", "acme", "ana", "Ana's", (), ("tool:call",), 1))
    PostgresSwitches(postgres_database).add(KillSwitch("s1", EVERYBODY, "tool", "x", "", "op", 1))
    before = PostgresConfiguration(postgres_database).read()
    dump = [str(postgres_server.program("pg_dump")), "-Fc"]
    name = postgres_config.place.rpartition("/")[2]
    asked = subprocess.run([*dump, postgres_config.url], capture_output=True, timeout=60, check=False)
    assert asked.returncode != 0
    assert b"row-level security" in asked.stderr
    dumped = subprocess.run([*dump, postgres_server.database_url(name)], capture_output=True, timeout=60, check=True)
    other = database(postgres_server)
    restore = [str(postgres_server.program("pg_restore")), "-d", postgres_server.database_url(other), "--exit-on-error"]
    subprocess.run(restore, input=dumped.stdout, capture_output=True, timeout=60, check=True)
    config = PostgresConfig(postgres_server.database_url(other, user=LOGIN))
    check(config)
    with closing(Database(config)) as restored:
        assert PostgresConfiguration(restored).read() == before
        assert [key.id for key in PostgresKeys(restored).list("acme")] == ["k1"]
        PostgresKeys(restored).revoke("acme", "k1", 5)
        assert PostgresConfiguration(restored).revision() == before.revision + 1
    postgres_server.drop_database(other)
