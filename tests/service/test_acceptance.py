"""`fulcrum up` on SQLite, and `fulcrum server` with `fulcrum processor` on Postgres, Valkey and NATS, answer alike."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from acceptance import POLICIES, SETTINGS, plain, play, trail
from governed_processes import Up, marking_http, until
from installation_rig import ADMIN, CONFIG, PATIENT, STREAM, open_installation

from fulcrum_mcp.composition.audit import open_reader

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    for name, text in POLICIES.items():
        (folder / name).write_text(text)
    return folder


async def embedded(folder: Path, policies: Path) -> tuple[list[tuple[str, Any]], list[str]]:
    """What `fulcrum up` answers, and its trail."""
    async with marking_http(folder / "notes") as url:
        config = folder / "fulcrum.toml"
        config.write_text(CONFIG.format(url=url, tight=100).replace('anonymous = "dev"\n', "") + SETTINGS)
        up = Up(folder / "data", config, folder / "log", str(policies), anonymous=None)
        up.environ = {**os.environ, "FULCRUM_ADMIN_KEY": ADMIN}
        try:
            await up.start()
            steps = await asyncio.to_thread(lambda: list(play(up.url)))
            assert await up.end(signal.SIGTERM) == 0, up.log.read_text()
        finally:
            await up.close()
    reader = open_reader(folder / "data")
    lines = [line.decode() for line in reader.lines(None)]
    reader.close()
    return steps, trail(lines)


async def whole(folder: Path, policies: Path, records: int, more: str) -> tuple[list[tuple[str, Any]], list[str]]:
    """What an installation answers, and its trail once it is as long."""
    options = ("--policies", str(policies))
    async with open_installation(
        folder, replicas=1, more=SETTINGS + more, tight=100, options=options, anonymous=False, environ=PATIENT
    ) as made:
        steps = await asyncio.to_thread(lambda: list(play(made.replicas[0].url)))

        async def stored() -> bool:
            return len(await asyncio.to_thread(made.records)) >= records

        await until(stored, f"{records} records are stored")
        return steps, trail([line.decode() for line in await asyncio.to_thread(made.lines)])


@pytest.mark.parametrize("more", ["", STREAM], ids=["spool", "stream"])
async def test_both_answer_one_script_alike_and_leave_the_same_trail(tmp_path: Path, policies: Path, more: str) -> None:
    for name in ("up", "server"):
        await asyncio.to_thread((tmp_path / name).mkdir)
    here, kept = await embedded(tmp_path / "up", policies)
    there, stored = await whole(tmp_path / "server", policies, len(kept), more)
    for (what, one), (_, other) in zip(here, there, strict=True):
        assert one == other, what
    assert kept == stored
    codes = [step for step, (status, text) in here if status == 200 and '"isError":true' in text]
    assert codes, "nothing was denied: the script shows too little"
    said = "".join(text for _, (_, text) in here)
    for code in (
        "forbidden_word",
        "rate_limited",
        "budget_exceeded",
        "tainted",
        "often",
        "stopped",
        "unknown_tool",
        "not_listed",
    ):
        assert code in said, code
    assert "****-****" not in said
    assert "1234-5678" not in said


def test_what_is_compared_still_tells_a_difference() -> None:
    one = '{"specversion":"1.0","id":"01a20d3f-fd1a-7b85-9819-994a9280027c","data":{"effect":"allow","bytes":12}}'
    assert trail([one]) == trail([one.replace("994a", "0000")])
    assert trail([one]) != trail([one.replace("allow", "deny")])
    assert plain("left: 3 of 10") != plain("left: 2 of 10")
