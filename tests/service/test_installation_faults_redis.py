"""Each fault under Redis: what needs the ledger is denied within a second, and the rest goes on."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from fault_cells import CELLS, Cell
from fault_checks import LIMITED, LONG, SECOND, each, ends_well, goes_on, refuses, right_or_refused, through
from fault_site import Site, open_site
from installation_rig import Replica

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("redis"), "redis") as opened:
        yield opened


@pytest.mark.parametrize("cell", CELLS["redis"], ids=str)
async def test_without_redis_what_needs_the_ledger_is_denied_and_the_rest_goes_on(site: Site, cell: Cell) -> None:
    await through(site, cell, without_redis)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS["redis"], ids=str)
async def test_without_redis_what_needs_the_ledger_is_denied_for_long(site: Site, cell: Cell) -> None:
    await through(site, cell, without_redis, seconds=LONG)


async def without_redis(site: Site, cell: Cell) -> None:
    for _ in range(3):
        limited = await each(site, LIMITED)
        past = [await site.call(site.odd, tool) for tool in ("mark", "tight")]
        if cell.use == "none":
            refuses([*limited, *past])
        elif cell.use == "all":
            goes_on([*limited, *past])
        else:
            right_or_refused([*limited, *past])
        goes_on(await each(site, ["mark", "spare"]))
        goes_on(await each(site, ["mark"], key=site.key))
    burst = await asyncio.gather(
        *(site.call(replica, tool) for replica in site.pair for tool in (*LIMITED, "mark") * 8)
    )
    right_or_refused(burst)
    if cell.use == "none":
        assert sum(answer.kind == "ok" for answer in burst) == 16, f"not as many as match no budget: {burst}"
        refuses([answer for answer in burst if answer.kind != "ok"])
    assert (await site.ask(site.pair[0], "GET", "/api/v1/keys"))[0] == 200
    assert (await site.throw(site.pair[0], "tool:marks__spare"))[0] == 201

    stalls = site.installation.stalls

    async def everywhere() -> bool:
        return (await site.call(site.pair[1], "spare")).kind == "stopped"

    try:
        await stalls.until(everywhere, "the kill switch holds on the other replica", SECOND)
    finally:
        await site.lift(site.pair[0], "tool:marks__spare")
    for replica in site.pair:
        await stalls.until(partial(lifted, site, replica), f"it is lifted on {replica.name}", SECOND)


async def lifted(site: Site, replica: Replica) -> bool:
    return (await site.call(replica, "spare")).kind == "ok"


async def test_chains_verify_after_all_of_it_and_a_planted_fault_is_found(site: Site) -> None:
    await ends_well(site)
