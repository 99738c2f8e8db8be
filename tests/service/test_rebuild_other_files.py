"""On Postgres, Valkey and NATS: gateways with different files. Whoever makes lost books forgets nobody's budget."""

import asyncio
import signal
from pathlib import Path

import pytest
import redis
from governed_processes import until
from installation_rig import Installation, Replica, open_installation
from peers.marking_server import read_notes

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(240)]

LIMIT = 10
REBUILT = "ledger rebuilt"
MOST = 20
"""Losses until the one that has not the budget must have been the first to make the books."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def other(installation: Installation, name: str, config: Path, *more: str) -> Replica:
    made = Replica(name, installation.folder / name, config, installation.environ, more)
    installation.replicas.append(made)
    return made


async def spend(replica: Replica, calls: int) -> list[str]:
    """`ok`, or the code of the denial, of each."""
    found: list[str] = []
    for number in range(calls):
        answer = await replica.call("tight", str(number))
        assert answer is not None
        result = answer["result"]
        denied = result.get("isError", False)
        found.append(result["_meta"]["dev.fulcrum/decision"]["reasons"][0]["code"] if denied else "ok")
    return found


def rebuilt(replica: Replica) -> int:
    return replica.log.read_text().count(REBUILT)


async def lose(installation: Installation) -> None:
    """All is gone; until it is made again, by whomever."""
    living = [each for each in installation.replicas if each.running.is_set()]
    before = sum(map(rebuilt, living))
    with redis.Redis.from_url(installation.valkey.url) as client:
        await asyncio.to_thread(client.flushall)

    async def again() -> bool:
        return sum(map(rebuilt, living)) > before

    await until(again, "the books are made again", 60)
    await installation.serving()


async def test_what_is_spent_outlives_losses_whoever_makes_the_books_and_whoever_comes_later(tmp_path: Path) -> None:
    async with open_installation(tmp_path, replicas=1, tight=LIMIT) as installation:
        (mine,) = installation.replicas
        bare = tmp_path / "bare.toml"
        bare.write_text("[limits]\nmax_depth = 64\n")
        stranger = other(installation, "stranger", bare, "--planes", "control")
        await stranger.start()
        assert (await spend(mine, LIMIT + 2)).count("ok") == LIMIT
        for _ in range(MOST):
            await lose(installation)
            assert "ok" not in await spend(mine, 2)
            if rebuilt(stranger):
                break
        assert rebuilt(stranger), "the stranger never was the first"

        await mine.end(signal.SIGTERM)
        installation.replicas.remove(mine)
        await lose(installation)
        later = other(installation, "later", installation.config, "--policies", "allow_all")
        await later.start()
        await installation.serving()
        assert "ok" not in await spend(later, 2), "it was away while the books were made"
        assert sum(tool == "tight" for tool, _ in read_notes(installation.notes)) == LIMIT
