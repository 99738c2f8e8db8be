"""On Postgres, Valkey and NATS: what is changed through one replica holds on all, with NATS and without."""

import asyncio
from pathlib import Path

import pytest
from governed_processes import until
from installation_rig import ADMIN, Installation, Replica, open_installation

from fulcrum_mcp.cli.remote import RemoteTarget

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]

SECOND = 1.0
STOP = {"target": "server:marks", "reason": "it runs wild"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def target(replica: Replica) -> RemoteTarget:
    return RemoteTarget(f"http://127.0.0.1:{replica._port}", ADMIN)


async def said(replica: Replica) -> str:
    """`here` or why not."""
    answer = await replica.call("mark", "text")
    assert answer is not None
    text = str(answer["result"]["content"][0]["text"])
    return "here" if text == "text" else text


async def holds(installation: Installation, words: str, within: float) -> None:
    """Every replica answers so, soon after a change that was made just now."""
    for replica in installation.replicas:
        found: list[str] = []

        async def holds_here(replica: Replica = replica, found: list[str] = found) -> bool:
            found[:] = [await said(replica)]
            return words in found[0]

        try:
            within -= await installation.stalls.until(holds_here, f"{replica.name} says {words}", within)
        except AssertionError as late:
            raise AssertionError(f"{late}; it says {found}") from None


async def test_changes_through_one_replica_hold_on_all_within_a_second(tmp_path: Path) -> None:
    async with open_installation(tmp_path, processors=0, options=()) as installation:
        first, second = installation.replicas

        async def connected() -> bool:
            return all(["detail" not in (await replica.ready())["stream"] for replica in installation.replicas])

        await until(connected, "NATS, which a replica waits for beside its calls", 30)
        assert "not_listed" in await said(first), "without policies everything is denied"
        one, other = target(first), target(second)
        policy = {"p.rego": "package fulcrum.policies.p\n\nallow := true\n"}
        published = await asyncio.to_thread(one.publish_policies, "mine", policy)
        assert published["overruled"] is None
        await holds(installation, "here", SECOND)
        for number in range(3):
            by = one if number % 2 else other
            thrown = await asyncio.to_thread(by.throw_switch, {**STOP, "everybody": number == 2})
            await holds(installation, "it runs wild", SECOND)
            await asyncio.to_thread(by.lift_switch, thrown["kill_switch"]["id"], None)
            await holds(installation, "here", SECOND)
        for replica in installation.replicas:
            assert "detail" not in (await replica.ready())["configuration"]


async def test_without_nats_changes_are_found_by_looking_and_that_is_said(tmp_path: Path) -> None:
    async with open_installation(tmp_path, processors=0) as installation:
        first, _ = installation.replicas
        await holds(installation, "here", SECOND)
        installation.nats.stop()

        async def noticed() -> bool:
            details = [(await each.ready())["configuration"].get("detail", "") for each in installation.replicas]
            return all("no news of changes" in detail for detail in details)

        await until(noticed, "every replica says so")
        await asyncio.to_thread(target(first).throw_switch, STOP)
        assert "it runs wild" in await said(first), "where it was thrown it holds at once"
        await holds(installation, "it runs wild", 6 * SECOND)
        installation.nats.start()

        async def well() -> bool:
            return all(["detail" not in (await each.ready())["configuration"] for each in installation.replicas])

        await until(well, "all is well")
