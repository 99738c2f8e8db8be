"""Each fault under NATS: calls go on while the spool has room, and changes arrive all the same."""

from collections.abc import AsyncIterator

import pytest
from fault_cells import CELLS, Cell
from fault_checks import LIMITED, LONG, each, ends_well, goes_on, refuses, through
from fault_site import Site, open_site
from installation_rig import Replica

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]

POLLED = 7.0
"""Seconds until a change that nobody announces is in force: the store is asked every 5 s."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("nats"), "nats") as opened:
        yield opened


@pytest.mark.parametrize("cell", CELLS["nats"], ids=str)
async def test_without_nats_calls_go_on_while_the_spool_has_room_and_changes_arrive(site: Site, cell: Cell) -> None:
    await through(site, cell, without_nats)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS["nats"], ids=str)
async def test_without_nats_calls_go_on_and_changes_arrive_for_long(site: Site, cell: Cell) -> None:
    await through(site, cell, without_nats, seconds=LONG)


async def without_nats(site: Site, cell: Cell) -> None:
    goes_on(await each(site, ["mark", *LIMITED] * 3))
    status, text = await site.throw(site.pair[0], "tool:marks__spare")
    assert status == 201, text
    try:
        assert (await site.call(site.pair[0], "spare")).kind == "stopped", "where it was thrown it holds at once"

        async def everywhere() -> bool:
            return (await site.call(site.pair[1], "spare")).kind == "stopped"

        await site.installation.stalls.until(everywhere, "the kill switch holds on the other replica", POLLED)
    finally:
        await site.lift(site.pair[0], "tool:marks__spare")
    if cell.fault == "refuse":
        await fills(site.odd, site)


async def fills(replica: Replica, site: Site) -> None:
    """Calls are answered until the spool is full, then denied; the other replicas go on."""
    answer = await site.call(replica, "mark")
    for _ in range(2_000):
        if answer.kind != "ok":
            break
        answer = await site.call(replica, "mark")
    refuses([answer, await site.call(replica, "tight")])
    assert "spool" in answer.text
    goes_on(await each(site, ["mark", "tight"]))


async def test_chains_verify_after_all_of_it_and_a_planted_fault_is_found(site: Site) -> None:
    await ends_well(site)
