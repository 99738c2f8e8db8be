"""Gateway and event-processor, started as their images start them, on servers made of the files of infra/."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from composed import ROOT, composed_environment, made_secrets
from infra_servers import INFRA, InfraNats, InfraRedis, prepared
from servers.postgres import PostgresServer
from servers.process import HOST, Server, free_port
from truths import tables_of

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(300)]


class Deployed(Server):
    """One container's process: the environment that compose gives it, but for the addresses."""

    def __init__(self, folder: Path, given: dict[str, str], *command: str) -> None:
        super().__init__(folder)
        self._command = command
        self.metrics = f"{HOST}:{free_port()}"
        self._given = given | {
            "FULCRUM_HTTP": f"{HOST}:{self.port}",
            "FULCRUM_GRPC": f"{HOST}:{free_port()}",
            "FULCRUM_DATA": str(self.data),
            "FULCRUM_TELEMETRY_METRICS": self.metrics,
        }

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        words = [f"{name}={value}" for name, value in self._given.items()]
        return ["env", *words, sys.executable, "-m", "fulcrum_mcp.cli", *self._command]

    def answers(self, seconds: float = 1.0) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=seconds) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def healthy(self) -> bool:
        """What the container's own check says."""
        env = {"FULCRUM_HTTP": self._given["FULCRUM_HTTP"]}
        script = str(INFRA / "docker" / "healthcheck.py")
        return subprocess.run([sys.executable, script], env=env, check=False, timeout=20).returncode == 0

    def measures_all_of(self, heading: str) -> None:
        """Soon every metric under that heading of the reference is served, and at no time another."""
        rows = tables_of((ROOT / "docs" / "reference" / "metrics.md").read_text())[heading]
        promised = {(row["name"], row["type"]) for row in rows}
        until = time.monotonic() + 60
        while (served := _families(self.metrics)) != promised:
            assert served <= promised, f"not documented: {served - promised}"
            assert time.monotonic() < until, f"not served: {promised - served}"
            time.sleep(0.1)


def _families(address: str) -> set[tuple[str, str]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return set(re.findall(r"^# TYPE (\w+) (\w+)$", answer.read().decode(), re.MULTILINE))


class Installation(NamedTuple):
    env_file: Path
    addresses: dict[str, str]
    folder: Path

    def environment(self, service: str) -> dict[str, str]:
        given = composed_environment(self.env_file, service)
        assert set(self.addresses) <= set(given)
        return given | self.addresses


@pytest.fixture
def installation(own_postgres: PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    """Servers as infra/ makes them, secrets as the guide makes them."""
    made_secrets(tmp_path)
    with InfraNats(tmp_path / "nats") as streams, InfraRedis(tmp_path / "redis") as books:
        addresses = {
            "FULCRUM_POSTGRES_URL": prepared(own_postgres),
            "FULCRUM_REDIS_URL": books.url,
            "FULCRUM_NATS_URL": streams.url,
        }
        yield Installation(tmp_path / ".env", addresses, tmp_path)


def test_processor_is_ready_healthy_and_measured(installation: Installation) -> None:
    given = installation.environment("event-processor")
    with Deployed(installation.folder / "processor", given, "processor") as process:
        assert process.healthy()
        process.measures_all_of("Event-processor")


def test_gateway_is_ready_healthy_and_measured_and_the_guides_first_steps_work(installation: Installation) -> None:
    given = installation.environment("fulcrum-server") | {"FULCRUM_CONFIG": str(INFRA / "fulcrum.toml")}
    with Deployed(installation.folder / "server", given, "server") as process:
        assert process.healthy()
        guide = (ROOT / "docs" / "DEPLOYMENT_GUIDE.md").read_text()
        steps = re.findall(r"^fulcrum ((?:policy|keys) [^#\n]+)", guide, re.MULTILINE)
        assert [step.split()[:2] for step in steps] == [["policy", "publish"], ["keys", "create"]]
        said = ""
        for step in steps:
            ran = subprocess.run(
                [sys.executable, "-m", "fulcrum_mcp.cli", *step.split(), "--json"],
                cwd=ROOT,
                env={"FULCRUM_URL": process.url, "FULCRUM_ADMIN_KEY": given["FULCRUM_ADMIN_KEY"]},
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
            assert ran.returncode == 0, ran.stderr
            said = ran.stdout
        assert json.loads(said)["key"]["agent"] == "my-agent"
        process.measures_all_of("Gateway")
