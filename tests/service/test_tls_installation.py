"""An installation over TLS to all its parts: what one wrong certificate stops, and that the right one is enough."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from governed_processes import FULCRUM, until
from installation_rig import STREAM, Replica, all_well
from kill_checker import faults
from servers.certificates import Authority
from tls_rig import PASSWORD, TlsInstallation, open_tls_installation

from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.trail import TrailVerifier

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Site:
    """The installation, and what its clients saw."""

    def __init__(self, installation: TlsInstallation) -> None:
        self.installation = installation
        self.answered: dict[str, str] = {}
        self.refused: list[str] = []

    async def call(self, replica: Replica) -> str:
        """`ok`, or the code of the denial."""
        text = f"{len(self.answered)}-{len(self.refused)}"
        answer = await replica.call("mark", text)
        assert answer is not None
        result: dict[str, Any] = answer["result"]
        if not result.get("isError"):
            self.answered[text] = "ok"
            return "ok"
        self.refused.append(text)
        (reason,) = result["_meta"]["dev.fulcrum/decision"]["reasons"]
        code: str = reason["code"]
        return code

    async def calls(self) -> set[str]:
        """One through each replica."""
        return {await self.call(replica) for replica in self.installation.replicas}

    async def tells(self, part: str, words: str) -> None:
        """Until every replica says so of a part."""

        async def told() -> bool:
            parts = [await replica.ready() for replica in self.installation.replicas]
            return all(words in each[part].get("detail", "") for each in parts)

        await until(told, f"{part}: {words}")

    async def serves(self) -> None:
        """Until calls are answered and everything is said to work."""

        async def served() -> bool:
            return await self.calls() == {"ok"}

        await until(served, "calls are answered")
        await self.installation.serving()


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_tls_installation(tmp_path_factory.mktemp("tls")) as installation:
        yield Site(installation)


def verified(installation: TlsInstallation) -> None:
    """As `fulcrum audit verify` does."""
    keys = installation.keys()
    verifier = TrailVerifier(keys.key_id, keys.check)
    with installation.reader() as reader:
        for line in export_trail(reader, keys, None, "2026-11-24T12:00:00Z"):
            assert verifier.feed(line) is None
    assert verifier.finish() is None
    assert verifier.records > 20


async def test_calls_are_governed_over_tls_alone(site: Site) -> None:
    for _ in range(5):
        assert await site.calls() == {"ok"}
    assert all(front.accepted and not front.plain for front in site.installation.fronts.values())


async def test_redis_with_an_expired_certificate_denies_until_it_is_renewed(site: Site) -> None:
    installation = site.installation
    installation.show("redis", installation.bad)
    assert await site.calls() == {"unavailable"}
    await site.tells("ledger", "renew it on the server")
    installation.show("redis", installation.good)
    await site.serves()


async def test_nats_with_an_expired_certificate_leaves_records_in_the_spools(site: Site) -> None:
    installation = site.installation
    await asyncio.to_thread(installation.show, "nats", installation.bad)
    await site.tells("stream", "renew it on the server")
    for _ in range(3):
        assert await site.calls() == {"ok"}
    await asyncio.to_thread(installation.show, "nats", installation.good)
    await site.serves()


async def test_a_gateway_without_a_spool_denies_until_nats_is_right_again(site: Site) -> None:
    installation = site.installation
    config = installation.folder / "stream.toml"
    config.write_text(installation.config.read_text() + STREAM)
    gateway = Replica(
        "stream", installation.folder / "stream", config, installation.environ, ("--policies", "allow_all")
    )
    try:
        await gateway.start()
        assert await site.call(gateway) == "ok"
        await asyncio.to_thread(installation.show, "nats", installation.bad)
        assert await site.call(gateway) == "unavailable"
        await asyncio.to_thread(installation.show, "nats", installation.good)

        async def served() -> bool:
            return await site.call(gateway) == "ok"

        await until(served, "calls are answered")
        assert await gateway.end(signal.SIGTERM) == 0, gateway.log.read_text()
    finally:
        await gateway.close()
    await site.serves()


async def test_postgres_with_an_expired_certificate_starts_nobody_and_stops_no_call(site: Site) -> None:
    installation = site.installation
    installation.show("postgres", installation.bad)
    assert await site.calls() == {"ok"}
    for command in (("server", "--config", str(installation.config), "--http", "127.0.0.1:0"), ("db", "status")):
        more = ("--data", str(installation.folder / "late")) if command[0] == "server" else ()
        process = await asyncio.create_subprocess_exec(
            *FULCRUM,
            *command,
            *more,
            env=installation.environ,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert process.returncode not in {0, None}
        text = said.decode()
        assert f"postgres 127.0.0.1:{installation.fronts['postgres'].port}/" in text
        assert "certificate verify failed; look whether it has expired" in text
        assert "Traceback" not in text
        assert PASSWORD not in text
    installation.show("postgres", installation.good)
    await site.serves()


async def test_our_own_certificate_and_the_ca_are_replaced_while_it_runs(site: Site, tmp_path: Path) -> None:
    installation = site.installation
    successor = Authority(tmp_path, "successor")
    ca = installation.files / "ca.pem"
    ca.write_bytes(ca.read_bytes() + successor.ca.read_bytes())
    installation.identify(installation.authority.issue("renewed"))
    for part in ("redis", "postgres", "nats"):
        await asyncio.to_thread(installation.show, part, successor.issue(part))
    await site.serves()
    installation.identify(successor.issue("stranger"))  # whom the servers do not know yet
    installation.show("redis", installation.good)
    assert await site.calls() == {"unavailable"}
    await site.tells("ledger", "FULCRUM_REDIS_CERT")
    installation.identify(installation.authority.issue("again"))
    await site.serves()


async def test_after_all_of_it_every_record_is_stored_and_nothing_secret_was_said(site: Site) -> None:
    installation = site.installation
    evidence = await all_well(installation, site.answered, site.refused, 60)
    assert faults(evidence) == []
    await asyncio.to_thread(verified, installation)
    for process in [*installation.replicas, *installation.processors]:
        assert await process.end(signal.SIGTERM) == 0, process.log.read_text()
    said = installation.logs()
    assert "certificate has expired" in said
    assert "WARNING asyncio" not in said
    assert "Traceback" not in said
    assert PASSWORD not in said
