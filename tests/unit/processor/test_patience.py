import asyncio

import pytest
from structlog.testing import capture_logs

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.processor.patience import Patience, waited


def test_waits_double_up_to_the_longest_and_begin_anew() -> None:
    patience = Patience(0.5)
    assert [patience.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    patience.reset()
    assert patience.next() == 0.1


def test_the_same_trouble_is_said_once() -> None:
    patience = Patience(1.0)
    with capture_logs() as logs:
        said = patience.told(Unavailable("down"), "store.waits", None)
        said = patience.told(Unavailable("down"), "store.waits", said)
        patience.told(ValueError("a secret"), "store.waits", said)
    assert [entry["reason"] for entry in logs] == ["down", "ValueError, see the log"]
    assert isinstance(logs[1]["exc_info"], ValueError)


@pytest.mark.anyio
async def test_a_wait_ends_when_it_is_time_to_stop() -> None:
    stopping = asyncio.Event()
    assert not await waited(stopping, 0.001)
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    assert await waited(stopping, 60)
    assert await waited(stopping, 0)
