"""The figures of all workers in one answer, over the real sockets of siblings; who is silent holds nobody up."""

import socket
import time
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from sibling_sockets import serving, short_folder

from fulcrum_mcp.api import siblings as module
from fulcrum_mcp.api.mcp.writer import Receive, Send, send_body
from fulcrum_mcp.api.metrics import metrics_text
from fulcrum_mcp.api.siblings import Siblings
from fulcrum_mcp.composition.figures import Figures, merged
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.ports import Buckets, Metric, Point

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    with short_folder() as made:
        yield Path(made)


def figures(number: int, folder: Path, count: int = 3) -> Figures:
    own = [
        Metric("fulcrum_calls", "counter", "Calls.", [Point({"server": "a"}, number)]),
        Metric("fulcrum_time", "histogram", "Time.", [Point({}, Buckets((0.5,), (number, 0), 0.25))]),
    ]
    return Figures(lambda: own, Siblings(Seat(number, count), folder))


async def refused(_scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
    await send_body(send, 404, b"nothing here", [])


async def test_every_workers_figures_come_with_its_number(folder: Path) -> None:
    async with (
        serving(figures(2, folder).beside(refused), folder / "2.sock"),
        serving(figures(3, folder).beside(refused), folder / "3.sock"),
    ):
        found = await figures(1, folder).read()
    calls, times = found
    assert [(point.labels, point.value) for point in calls.points] == [
        ({"server": "a", "worker": str(number)}, number) for number in (1, 2, 3)
    ]
    counted = [tuple(point.value.counts) for point in times.points if isinstance(point.value, Buckets)]
    assert counted == [(number, 0) for number in (1, 2, 3)]
    assert metrics_text(found).count(b"# TYPE fulcrum_calls_total counter") == 1


async def test_one_alone_has_no_label() -> None:
    (metric,) = await Figures(lambda: [Metric("fulcrum_x", "gauge", "X.", [Point({}, 1)])], None).read()
    assert metric.points == [Point({}, 1)]


async def test_a_worker_that_is_gone_or_silent_or_says_something_else_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROBE", 0.3)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "2.sock"))
        silent.listen(1)

        async def strange(_scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
            await send_body(send, 200, b"what?", [])

        async with serving(strange, folder / "3.sock"):
            began = time.monotonic()
            found = await figures(1, folder, count=4).read()
    assert time.monotonic() - began < 5
    assert [point.labels["worker"] for point in found[0].points] == ["1"]


async def test_other_paths_are_the_gateways(folder: Path) -> None:
    async with serving(figures(2, folder).beside(refused), folder / "2.sock"):
        asking = Siblings(Seat(1, 2), folder)
        assert await asking.ask(2, "/mcp") is None
        assert await asking.ask(2, "/figures") is not None


def test_families_that_only_some_have_are_kept() -> None:
    one = Metric("fulcrum_a", "gauge", "A.", [])
    two = Metric("fulcrum_b", "gauge", "B.", [Point({}, 2)])
    assert merged({1: [one], 2: [one, two]}) == [one, two._replace(points=[Point({"worker": "2"}, 2)])]
