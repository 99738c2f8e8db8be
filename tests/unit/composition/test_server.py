"""A server that ends ends everything, in order, whatever of it fails."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fulcrum_mcp.composition.backing import embedded_backing
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


async def test_readyz_says_that_nothing_could_allow_a_call(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    backing = replace(embedded_backing(settings), otherwise=None)
    server = await open_server(settings, backing=backing)
    assert server.parts()["policies"].detail == "none: every call is denied (fulcrum policy publish DIR)"
    await server.close()
    server = await open_server(settings)
    assert server.parts()["policies"].detail == ""
    await server.close()
