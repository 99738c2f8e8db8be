"""A trail has one signing key: a process that would sign with another one is refused at its start."""

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from archive_rig import Author, lead, put
from governed_processes import FULCRUM
from processor_processes import ProcessorProcess, new_signing_key, within
from servers.process import free_port

from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.signing import AuditKeys

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(240)]

NOBODY = "127.0.0.1:1"
"""Where nothing listens."""


@pytest.fixture
def signed(postgres_config: PostgresConfig, tmp_path: Path) -> AuditKeys:
    """A trail that a processor has signed with the key in its folder `first/data`."""
    keys = AuditKeys(tmp_path / "first" / "data" / "keys")
    database = Database(postgres_config)
    put(PostgresArchive(database), Author().calls(2))
    assert lead(PostgresChains(database), keys) == (4, 1)
    database.close()
    return keys


@pytest.fixture
def environ(postgres_config: PostgresConfig) -> dict[str, str]:
    return {
        "FULCRUM_POSTGRES_URL": postgres_config.url,
        "FULCRUM_NATS_URL": f"nats://{NOBODY}",
        "FULCRUM_REDIS_URL": f"redis://{NOBODY}",
        "FULCRUM_STATE_KEYS": secrets.token_hex(32),
        "FULCRUM_AUDIT_MAC_KEY": secrets.token_hex(32),
    }


def ran(folder: Path, environ: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}
    return subprocess.run(
        [*FULCRUM, *command, "--http", f"127.0.0.1:{free_port()}", "--data", str(folder / "other")],
        env={**kept, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("given", [False, True], ids=["a folder of its own", "another key"])
@pytest.mark.parametrize(
    "command",
    [("processor",), ("server",), ("server", "--planes", "control"), ("server", "--workers", "2")],
    ids=" ".join,
)
def test_who_has_another_key_does_not_start(
    command: tuple[str, ...], signed: AuditKeys, environ: dict[str, str], tmp_path: Path, *, given: bool
) -> None:
    if given:
        environ["FULCRUM_AUDIT_SIGNING_KEY"] = new_signing_key()
    ended = ran(tmp_path, environ, *command)
    assert ended.returncode == 2, ended.stderr
    for part in (f"the key {signed.key_id}", "set FULCRUM_AUDIT_SIGNING_KEY", "keys/audit.key in its data folder"):
        assert part in ended.stderr
    assert "PRIVATE KEY" not in ended.stdout + ended.stderr


def test_the_folder_that_signed_first_goes_on_with_a_warning(
    signed: AuditKeys, environ: dict[str, str], tmp_path: Path
) -> None:
    del signed
    again = ProcessorProcess(tmp_path / "first", environ)
    try:
        within(60, lambda: "postgres" in str(again.get("/readyz")[1]) and _works(again, "postgres"))
        assert again.process.poll() is None
        assert "FULCRUM_AUDIT_SIGNING_KEY is not set" in again.log.read_text()
        assert again.end() == 0
    finally:
        again.process.kill()


def _works(process: ProcessorProcess, part: str) -> bool:
    return bool(process.get("/readyz")[1]["parts"][part]["ready"])
