"""Each fault under the upstream: the call ends with an error that names it, settled and recorded."""

from collections.abc import AsyncIterator

import pytest
from fault_cells import CELLS, Cell
from fault_checks import LIMITED, LONG, each, ends_well, goes_on, through
from fault_site import Site, open_site

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("upstream"), "upstream") as opened:
        yield opened


@pytest.mark.parametrize("cell", CELLS["upstream"], ids=str)
async def test_without_its_upstream_a_call_ends_with_an_error_that_names_it(site: Site, cell: Cell) -> None:
    await through(site, cell, without_upstream)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS["upstream"], ids=str)
async def test_without_its_upstream_a_call_names_it_for_long(site: Site, cell: Cell) -> None:
    await through(site, cell, without_upstream, seconds=LONG)


async def without_upstream(site: Site, cell: Cell) -> None:
    answers = await each(site, ["mark", *LIMITED])
    assert max(answer.seconds for answer in answers) < 3, answers
    if cell.use == "none":
        assert {answer.kind for answer in answers} == {"upstream"}, answers
        assert all("marks" in answer.text for answer in answers), answers
    elif cell.use == "all":
        goes_on(answers)
    else:
        assert {answer.kind for answer in answers} <= {"ok", "upstream", "error"}, answers
    if cell.fault == "refuse":
        for replica in site.pair:
            for _ in range(10):
                await site.call(replica, "mark")
            assert await site.metric(replica, 'fulcrum_upstream_breaker_open{server="marks"}') == 1


async def test_chains_verify_after_all_of_it_and_a_planted_fault_is_found(site: Site) -> None:
    await ends_well(site)
