"""Policies that change under load over two replicas: every decision is of one snapshot, and no call is dropped."""

import asyncio
import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_trails import DECIDED
from governed_processes import until
from installation_rig import ADMIN, Installation, Replica, open_installation

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]

PACE = 0.005
"""Seconds between two calls: 200 a second."""
STALL = 0.25
"""Half of what a gateway waits for the ledger: seconds in which the machine stood still are no fault of it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def policies(version: int) -> dict[str, str]:
    """Two policies and a document that belong together: each says which version it is."""
    rego = """package fulcrum.policies.{name}

import rego.v1

allow := true

warn contains {{"code": "{name}", "message": sprintf("%d/%d", [{version}, data.edition])}}

deny contains {{"code": "{name}", "message": sprintf("%d/%d", [{version}, data.edition])}} if {{
	input.phase == "call"
	input.tool.name == "tight"
}}
"""
    return {
        "first.rego": rego.format(name="first", version=version),
        "second.rego": rego.format(name="second", version=version),
        "data.json": json.dumps({"edition": version}),
    }


def publish(replica: Replica, version: int) -> None:
    request = urllib.request.Request(
        f"{replica.url}/api/v1/policies",
        data=json.dumps({"files": policies(version)}).encode(),
        headers={"x-api-key": ADMIN, "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201


class Stream:
    """Calls at an even pace, to each replica in turn; what became of each."""

    def __init__(self, installation: Installation) -> None:
        self._replicas = installation.replicas
        self._stalls = installation.stalls
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended: Counter[str] = Counter()
        """`ok`, `dropped`, `held up`: denied since the machine stood still, or the reasons of another denial."""

    async def run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self._stopping:
            number += 1
            task = asyncio.create_task(self._call(self._replicas[number % len(self._replicas)], f"call-{number}"))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += PACE
            await asyncio.sleep(max(due - time.monotonic(), 0))
        await asyncio.gather(*self._tasks)

    async def _call(self, replica: Replica, text: str) -> None:
        began = time.monotonic()
        answer = await replica.call("mark", text)
        if answer is None:
            self.ended["dropped"] += 1
        elif not answer["result"].get("isError"):
            self.ended["ok"] += 1
        else:
            reasons = answer["result"].get("_meta", {}).get("dev.fulcrum/decision", {}).get("reasons", [answer])
            late = reasons[0].get("code") == "unavailable" and self._stalls.between(began, time.monotonic()) > STALL
            self.ended["held up" if late else f"denied: {reasons}"] += 1

    def stop(self) -> None:
        self._stopping = True


def said(record: dict[str, Any]) -> set[str]:
    """The versions that a decision was made by."""
    return {part for warning in record["data"]["warnings"] for part in warning["message"].split("/")}


def mixed(records: Sequence[dict[str, Any]]) -> list[str]:
    """Decisions that more than one version had a part in."""
    return [
        record["id"]
        for record in records
        if len(said(record)) != 1 or {warning["code"] for warning in record["data"]["warnings"]} != {"first", "second"}
    ]


async def in_force(installation: Installation, replica: Replica, version: int, seconds: float) -> float:
    """Seconds until this replica judges by a version, without stalls."""

    async def judged() -> bool:
        answer = await replica.call("tight", f"probe-{version}")
        assert answer is not None
        assert "_meta" in answer["result"], answer
        reasons = answer["result"]["_meta"]["dev.fulcrum/decision"]["reasons"]
        return bool(reasons[0]["message"] == f"{version}/{version}")

    return await installation.stalls.until(judged, f"{replica.name} judges by version {version}", seconds)


async def reached(installation: Installation, version: int, seconds: float = 5.0) -> float:
    """Seconds until every replica judges by a version."""
    each = (in_force(installation, replica, version, seconds) for replica in installation.replicas)
    return max(await asyncio.gather(*each))


async def changed(folder: Path, changes: int, capsys: Any) -> None:
    async with open_installation(folder, options=()) as installation:
        await asyncio.to_thread(publish, installation.replicas[0], 1)
        await reached(installation, 1)
        stream = Stream(installation)
        running = asyncio.create_task(stream.run())
        longest = 0.0
        for version in range(2, changes + 2):
            await asyncio.to_thread(publish, installation.replicas[version % 2], version)
            longest = max(longest, await reached(installation, version))
        stream.stop()
        await running
        assert set(stream.ended) - {"held up"} == {"ok"}, stream.ended

        async def stored() -> bool:
            found = await asyncio.to_thread(decided, installation)
            allowed = [record for record in found if record["data"]["effect"] == "allow"]
            return len(allowed) == stream.ended["ok"]

        await until(stored, "every decision is stored", 60)
        records = await asyncio.to_thread(decided, installation)
        assert mixed(records) == []
        seen = {version for record in records for version in said(record)}
        assert {str(version) for version in range(2, changes + 2)} <= seen
        assert longest < 1.0
        with capsys.disabled():
            sys.stdout.write(
                f"\n{changes} changes under {stream.ended['ok']} calls over two replicas: 0 mixed, 0 dropped, "
                f"in force everywhere after {longest:.2f} s at most\n"
            )
        for which in (0, len(records) // 2):
            assert mixed(planted(records, which)) != [], "the checker must find a decision of two versions"


def planted(records: Sequence[dict[str, Any]], which: int) -> list[dict[str, Any]]:
    """The same decisions, in one of which the second policy is of another version."""
    data = records[which]["data"]
    first, second = data["warnings"]
    odd = {**records[which], "data": {**data, "warnings": [first, {**second, "message": "999/999"}]}}
    return [*records[:which], odd, *records[which + 1 :]]


def decided(installation: Installation) -> list[dict[str, Any]]:
    """Decisions that policies had a part in: before the first ones were published, all was denied without any."""
    return [record for record in installation.records() if record["type"] == DECIDED and record["data"]["policies"]]


@pytest.mark.timeout(300)
async def test_no_decision_mixes_two_versions_and_no_call_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await changed(tmp_path, 8, capsys)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
async def test_no_decision_mixes_two_versions_over_a_hundred_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await changed(tmp_path, 100, capsys)
