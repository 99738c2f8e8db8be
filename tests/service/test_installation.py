"""An installation of processes on Postgres, Valkey and NATS: one call through each replica, one trail of both."""

import signal
from pathlib import Path

import pytest
from audit_trails import DECIDED, FINISHED
from governed_processes import until
from installation_rig import PATIENT, open_installation
from kill_checker import faults

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_replicas_share_budgets_and_one_audit_trail(tmp_path: Path) -> None:
    async with open_installation(tmp_path, tight=3, environ=PATIENT) as installation:
        answered: dict[str, str] = {}
        for number in range(10):
            for replica in installation.replicas:
                answer = await replica.call("tight", f"{replica.name}-{number}")
                assert answer is not None
                answered[f"{replica.name}-{number}"] = "denied" if answer["result"].get("isError") else "ok"
        assert sorted(answered.values()).count("ok") == 3

        async def stored() -> bool:
            types = [record["type"] for record in installation.records()]
            return (types.count(DECIDED), types.count(FINISHED)) == (20, 3)

        await until(stored, "every record is stored")
        evidence = installation.evidence(answered)
        assert faults(evidence) == []
        assert evidence.spent["tight"] == (3, 0, 3)
        for process in [*installation.replicas, *installation.processors]:
            assert await process.end(signal.SIGTERM) == 0, process.log.read_text()
