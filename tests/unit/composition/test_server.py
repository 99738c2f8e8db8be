"""A server that ends ends everything, in order, whatever of it fails."""

import time
from pathlib import Path

import pytest

from fulcrum_mcp.composition.ending import Ending
from fulcrum_mcp.composition.server import open_server
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Noting:
    """A companion."""

    def __init__(self, ended: list[str], name: str) -> None:
        self._ended = ended
        self._name = name

    def start(self) -> None:
        pass

    async def close(self) -> None:
        self._ended.append(self._name)


async def test_a_part_that_fails_at_the_end_keeps_no_other_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await open_server(Settings(data=tmp_path / "data"))
    ended: list[str] = []
    server.companions = [*server.companions, Noting(ended, "first"), Noting(ended, "last")]
    for companion in server.companions:
        companion.start()
    close = server.plane.close

    async def closed(ending: Ending) -> None:
        ended.append("plane")
        await close(ending)

    async def broken() -> None:
        ended.append("telemetry")
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(server.plane), "close", lambda _, ending: closed(ending))
    monkeypatch.setattr(server.telemetry, "close", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await server.close()
    assert ended == ["telemetry", "plane", "last", "first"]
    with pytest.raises(Unavailable, match="shutting down"):
        await server.plane.journal.run(time.time)
