"""One database, one key, one set of books: who has another key, or finds the books of others, does not start."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from secrets import token_hex

import pytest
from contract.redis_books import begin
from governed_processes import FULCRUM
from processor_processes import new_signing_key
from servers.process import free_port

from fulcrum_adapters.jetstream import Seal
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.installation import join
from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore
from fulcrum_adapters.signing import nats_key

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(300)]

NOBODY = "127.0.0.1:1"
"""Where nothing listens."""
FIRST, SECOND = token_hex(32), token_hex(32)
INVALID = 2


@pytest.fixture
def database(postgres_config: PostgresConfig) -> Iterator[Database]:
    opened = Database(postgres_config)
    yield opened
    opened.close()


@pytest.fixture
def environ(postgres_config: PostgresConfig) -> dict[str, str]:
    return {
        "FULCRUM_POSTGRES_URL": postgres_config.url,
        "FULCRUM_NATS_URL": f"nats://{NOBODY}",
        "FULCRUM_REDIS_URL": f"redis://{NOBODY}",
        "FULCRUM_STATE_KEYS": token_hex(32),
        "FULCRUM_AUDIT_MAC_KEY": SECOND,
        "FULCRUM_AUDIT_SIGNING_KEY": new_signing_key(),
    }


def check_of(master: str) -> str:
    return Seal(nats_key(master, Path("nowhere"))).check


def ran(folder: Path, environ: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}
    return subprocess.run(
        [*FULCRUM, *command],
        env={**kept, "FULCRUM_DATA": str(folder / "data"), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def starts(command: str) -> list[str]:
    more = ["--grpc", f"127.0.0.1:{free_port()}"] if command == "server" else []
    return [command, "--http", f"127.0.0.1:{free_port()}", *more]


@pytest.mark.parametrize("command", ["server", "processor", "audit reconcile"])
def test_who_has_another_key_is_refused_with_place_and_remedy(
    tmp_path: Path, database: Database, environ: dict[str, str], command: str
) -> None:
    join(database, check_of(FIRST))
    ended = ran(tmp_path, environ, *(command.split() if " " in command else starts(command)))
    assert ended.returncode == INVALID, ended.stderr
    assert database.config.place in ended.stderr
    assert "FULCRUM_AUDIT_MAC_KEY" in ended.stderr
    assert "fulcrum db rekey" in ended.stderr
    assert SECOND not in ended.stdout + ended.stderr


def test_a_processor_that_was_given_no_key_is_refused_where_another_is_known(
    tmp_path: Path, database: Database, environ: dict[str, str]
) -> None:
    join(database, check_of(FIRST))
    environ.pop("FULCRUM_AUDIT_MAC_KEY")
    ended = ran(tmp_path, environ, *starts("processor"))
    assert (ended.returncode, "FULCRUM_AUDIT_MAC_KEY" in ended.stderr) == (INVALID, True)
    ended = ran(tmp_path, environ, "db", "rekey")
    assert (ended.returncode, "FULCRUM_AUDIT_MAC_KEY is not set" in ended.stderr) == (INVALID, True)


def test_a_new_key_is_taken_over_by_a_command(tmp_path: Path, database: Database, environ: dict[str, str]) -> None:
    found = join(database, check_of(FIRST))
    ended = ran(tmp_path, environ, "db", "rekey")
    assert (ended.returncode, "has this key now" in ended.stdout) == (0, True), ended.stderr
    ended = ran(tmp_path, environ, "db", "rekey", "--json")
    assert (ended.returncode, '"changed": false' in ended.stdout.replace('":f', '": f')) == (0, True), ended.stdout
    assert join(database, check_of(SECOND)) == found
    ended = ran(tmp_path, environ | {"FULCRUM_AUDIT_MAC_KEY": FIRST}, *starts("processor"))
    assert ended.returncode == INVALID


def test_a_server_that_finds_another_installation_s_books_is_refused_with_the_remedy(
    tmp_path: Path, environ: dict[str, str], valkey_url: str
) -> None:
    with closing(RedisStore(RedisConfig(valkey_url, timeout=2.0), "another")) as theirs:
        begin(theirs)
        ended = ran(tmp_path, environ | {"FULCRUM_REDIS_URL": valkey_url}, *starts("server"))
        assert ended.returncode == INVALID, ended.stderr
        assert "books of another installation" in ended.stderr
        assert "set another redis.prefix" in ended.stderr
        assert RedisLedger(theirs).epoch()[1], "they are as they were"
