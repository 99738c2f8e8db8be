"""Each fault under Postgres of a whole installation: calls go on, the control plane says 503, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fault_cells import CELLS, Cell
from fault_checks import LIMITED, LONG, each, ends_well, goes_on, through
from fault_site import Site, open_site

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]

KNOWN = 50.0
"""Seconds for which a key certainly counts; it counts for 60."""
FORGOTTEN = 130.0
"""Seconds after which it certainly does not: a shared cache may have had it for 60 s before a process took it over."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("postgres"), "postgres") as opened:
        yield opened


@pytest.mark.parametrize("cell", CELLS["postgres"], ids=str)
async def test_without_postgres_calls_go_on_and_the_control_plane_says_503(site: Site, cell: Cell) -> None:
    await through(site, cell, without_postgres)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS["postgres"], ids=str)
async def test_without_postgres_calls_go_on_for_long(site: Site, cell: Cell) -> None:
    await through(site, cell, without_postgres, seconds=FORGOTTEN + 10 if cell.fault == "refuse" else LONG)


async def without_postgres(site: Site, cell: Cell) -> None:
    goes_on(await each(site, ["mark", *LIMITED]))
    if site.known_for < KNOWN:
        goes_on(await each(site, ["mark"], key=site.key))
    elif cell.use == "none" and site.known_for > FORGOTTEN:
        assert {answer.kind for answer in await each(site, ["mark"], key=site.key)} == {"HTTP 503"}
    if cell.use == "none":
        before = len(await asyncio.to_thread(site.installation.records)) if cell.fault != "pause" else 0
        for replica in site.pair:
            status, text = await site.ask(replica, "GET", "/api/v1/keys")
            assert (status, _names_the_store(text)) == (503, True), text
        status, text = await site.throw(site.pair[0], "tool:marks__spare")
        assert (status, _names_the_store(text)) == (503, True), text
        goes_on(await each(site, ["spare", *LIMITED] * 3))
        if cell.fault != "pause":
            assert len(await asyncio.to_thread(site.installation.records)) <= before + 4, "who stores it?"
    elif cell.use == "all":
        assert (await site.ask(site.pair[0], "GET", "/api/v1/keys"))[0] == 200
    assert all(process.process.returncode is None for process in site.installation.processors if process.process)


def _names_the_store(text: str) -> bool:
    """Who is known is told the part, and who has to be looked up first only what cannot be read."""
    return "postgres" in text or "store of keys" in text


async def test_chains_verify_after_all_of_it_and_a_planted_fault_is_found(site: Site) -> None:
    await ends_well(site)
