"""A gateway that ends lets others forget it only when the store has all that it wrote."""

from unittest.mock import AsyncMock

import pytest

from fulcrum_mcp.composition.installation import Installation

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("courier", "retires"),
    [
        pytest.param(AsyncMock(close=AsyncMock(return_value=True)), True, id="all is confirmed"),
        pytest.param(AsyncMock(close=AsyncMock(return_value=False)), False, id="some is on its way"),
        pytest.param(None, False, id="records went to the stream directly"),
    ],
)
async def test_rebuild_waits_for_a_gateway_that_ended_before_all_it_wrote_was_stored(
    courier: AsyncMock | None, *, retires: bool
) -> None:
    installation = object.__new__(Installation)
    installation._courier, installation._undertaker = courier, None
    installation._keeper = keeper = AsyncMock()
    await installation.end()
    keeper.close.assert_awaited_once_with(retire=retires)
