"""The SDK's client and server, each in a process of its own, with `fulcrum up` and `fulcrum wrap` between them.

`make interop` does the same with more clients and servers, from npm and PyPI.
"""

import json
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.interop.clients import Target, differences, sdk2, steps_of, wrapped
from bench.interop.rig import KEY, gateway, reference, stdio_reference

pytestmark = pytest.mark.service

CRASH = "import sys; sys.exit('no configuration at /etc/thing.yaml')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def address(folder: Path) -> Generator[str]:
    with reference(folder) as address:
        yield address


@pytest.fixture(scope="module")
def origin(address: str, folder: Path) -> Generator[str]:
    servers = {"reference": {"url": address}, "piped": {"command": sys.executable, "args": stdio_reference()[1:]}}
    with gateway(servers, folder / "gateway") as origin:
        yield origin


def plan(url: str, name: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "name": name, "headers": {"Authorization": f"Bearer {KEY}"}, **more}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_client_gets_through_every_face_what_it_gets_directly(
    mode: str, address: str, origin: str, folder: Path
) -> None:
    targets = (
        Target("direct", {"url": address, "name": f"direct {mode}"}),
        Target("single", plan(f"{origin}/servers/reference/mcp", f"single {mode}")),
        Target("over stdio", plan(f"{origin}/servers/piped/mcp", f"piped {mode}")),
        Target("wrap", {"command": wrapped(stdio_reference(), folder), "name": f"wrap {mode}"}),
    )
    with ThreadPoolExecutor(2) as pool:
        direct, *through = pool.map(lambda target: steps_of(sdk2(), mode, target.plan), targets)
    assert direct[0] == ("version", "2025-11-25" if mode == "legacy" else mode)
    assert [step for step, _ in direct][-1] == "was_cancelled"
    assert "elicited" in dict(direct)
    assert "sampled" in dict(direct)
    for target, steps in zip(targets[1:], through, strict=True):
        # The gateway's own words name the server as it is configured.
        told = json.loads(json.dumps(steps).replace("'piped'", "'reference'"))
        assert differences(direct, [(step, value) for step, value in told], merged=False) == [], target.name


def test_comparison_finds_a_lost_value_a_lost_step_and_a_call_that_was_not_denied() -> None:
    denial = {
        "isError": True,
        "content": [{"text": "Denied by policy interop (forbidden): this tool is not for you. Decision dec_1."}],
    }
    direct: list[tuple[str, Any]] = [("version", "x"), ("add", {"a": 1, "b": None}), ("forbidden", {"isError": False})]
    good = [direct[0], direct[1], ("forbidden", denial)]
    assert differences(direct, good, merged=False) == []
    assert differences(direct, [direct[0], ("add", {"a": 1}), good[2]], merged=False) != []
    assert differences(direct, good[:2], merged=False) != []
    assert differences(direct, direct, merged=False) != []


def test_up_names_what_does_not_start_and_serves_the_rest(address: str, folder: Path) -> None:
    servers = {
        "reference": {"url": address},
        "missing": {"command": "no-such-command-of-ours"},
        "crashes": {"command": sys.executable, "args": ["-c", CRASH]},
        "closed": {"url": "http://127.0.0.1:9/mcp"},
        "elsewhere": {"url": address.replace("/mcp", "/nothing")},
    }
    with gateway(servers, folder / "broken") as origin:
        calls = [["reference__echo", {"text": "x"}], ["missing__echo", {}], ["crashes__echo", {}]]
        said = dict(steps_of(sdk2(), "auto", plan(f"{origin}/mcp", "broken", calls=calls)))
        printed = (folder / "broken" / "gateway.log").read_text()
    assert said["version"] == "2026-07-28"
    assert said["reference__echo"]["content"][0]["text"] == "x"
    assert "no such program in PATH" in json.dumps(said["missing__echo"])
    assert "no configuration at /etc/thing.yaml" in json.dumps(said["crashes__echo"])
    for line in (
        "✔ reference",
        "cannot start 'no-such-command-of-ours': no such program in PATH",
        "last words: no configuration at /etc/thing.yaml",
        "http://127.0.0.1:9/mcp: connection refused; start it or correct its url",
        "initialize: answered HTTP 404 instead of a JSON-RPC answer",
    ):
        assert line in printed, printed
    assert "Traceback" not in printed
