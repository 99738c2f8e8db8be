"""The SDK's client before two workers, a new connection for each request: it gets what it gets without a gateway."""

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from bench.interop.clients import differences, sdk2, steps_of
from bench.interop.rig import KEY, gateway, reference, stdio_reference

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

ROUNDS = 6
"""At most; two, where both workers had to hand something over."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def address(folder: Path) -> Generator[str]:
    with reference(folder) as address:
        yield address


@pytest.fixture(scope="module")
def origin(address: str, folder: Path) -> Generator[str]:
    servers = {"reference": {"url": address}, "piped": {"command": sys.executable, "args": stdio_reference()[1:]}}
    with gateway(servers, folder / "gateway", ["--workers", "2", "--log", "debug"]) as origin:
        yield origin


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_sessions_rounds_streams_and_cancellations_find_their_worker(
    mode: str, address: str, origin: str, folder: Path
) -> None:
    direct = steps_of(sdk2(), mode, {"url": address, "name": f"direct {mode}"})
    assert dict(direct)["elicited"]
    relayed = set[int]()
    for round_ in range(1, ROUNDS + 1):
        for server in ("reference", "piped"):
            plan: dict[str, Any] = {
                "url": f"{origin}/servers/{server}/mcp",
                "name": f"{server} {mode} {round_}",
                "headers": {"Authorization": f"Bearer {KEY}"},
                "fresh": True,
            }
            steps = steps_of(sdk2(), mode, plan)
            told = json.loads(json.dumps(steps).replace("'piped'", "'reference'"))
            assert differences(direct, [(step, value) for step, value in told], merged=False) == [], plan["name"]
        log = (folder / "gateway" / "gateway.log").read_text()
        assert "worker ended" not in log
        relayed = {json.loads(line)["worker"] for line in log.splitlines() if '"handed over"' in line}
        if round_ > 1 and relayed == {1, 2}:  # who takes a connection is the system's choice
            return
    assert relayed, "no request came to a worker that it was not for"
