"""One machine pays for nothing that only an installation needs: what `fulcrum up` and `wrap` load while they govern."""

import os
import signal
import sys
from pathlib import Path

import pytest
from governed_processes import Governed, Up, Wrap, marking_http, marking_stdio

pytestmark = [pytest.mark.service, pytest.mark.anyio]

FOREIGN = {"alembic", "nats", "opentelemetry", "prometheus_client", "psycopg", "redis", "sqlalchemy"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def loaded(log: Path) -> set[str]:
    """Modules that Python says it has imported, children included."""
    lines = log.read_text(errors="replace").splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


async def governs(process: Governed) -> set[str]:
    process.environ = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    try:
        await process.start()
        answer = await process.call("mark", "x")
        assert answer is not None
        assert not answer["result"].get("isError"), answer
        await process.end(signal.SIGTERM)
    finally:
        await process.close()
    return loaded(process.log)


async def test_up_loads_no_part_of_an_installation(tmp_path: Path) -> None:
    async with marking_http(tmp_path / "notes") as url:
        config = tmp_path / "fulcrum.toml"
        config.write_text(f'[[server]]\nname = "marks"\nurl = "{url}"\n')
        found = await governs(Up(tmp_path / "data", config, tmp_path / "log"))
    assert "fulcrum_mcp.composition.server" in found, "what was loaded is seen"
    assert {name.partition(".")[0] for name in found} & FOREIGN == set()


async def test_wrap_loads_no_part_of_an_installation(tmp_path: Path) -> None:
    config = tmp_path / "fulcrum.toml"
    config.write_text("")
    command = marking_stdio(tmp_path / "notes")
    found = await governs(Wrap("wrap", tmp_path / "data", config, command, tmp_path / "log"))
    assert "fulcrum_mcp.composition.wrap" in found, "what was loaded is seen"
    assert {name.partition(".")[0] for name in found} & FOREIGN == set()


async def test_a_part_of_an_installation_would_be_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    planted = Governed("planted", log)
    planted.environ = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    process = await planted.spawn([sys.executable, "-c", "import fulcrum_mcp.composition.installation"], pipes=False)
    assert await process.wait() == 0, log.read_text()
    assert {name.partition(".")[0] for name in loaded(log)} >= {"nats", "psycopg", "redis"}
