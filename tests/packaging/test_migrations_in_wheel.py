"""The schema's history travels in the wheel, and is run from there as it is from a checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from postgres_rig import LOGIN, database, login_user
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.upgrade import state

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
UPGRADE = """
import sys
sys.path.insert(0, sys.argv[1])
from fulcrum_adapters.postgres import upgrade
from fulcrum_adapters.postgres.config import PostgresConfig
before, after = upgrade.upgrade(PostgresConfig(sys.argv[2]))
print(upgrade.__file__, before.found, after.found)
"""


@pytest.mark.service
@pytest.mark.parts
def test_an_unpacked_wheel_migrates(postgres_server: PostgresServer, tmp_path: Path) -> None:
    subprocess.run(
        [UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True, capture_output=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    postgres_server.resume()
    postgres_server.start()
    login_user(postgres_server)
    name = database(postgres_server)
    url = postgres_server.database_url(name, user=LOGIN)
    ran = subprocess.run(
        [sys.executable, "-c", UPGRADE, tmp_path / "unpacked", url],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    place, before, after = ran.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "unpacked")
    assert (before, after) == ("None", state(PostgresConfig(url)).latest)
    postgres_server.drop_database(name)
