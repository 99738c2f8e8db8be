"""Figures and spans go to a collector at `https://` whose certificate is right; without one, calls go on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from governed_processes import Up, marking_http, until
from otlp_collector import open_collector
from servers.certificates import Authority
from servers.tls import TlsFront

pytestmark = [pytest.mark.service, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def told(folder: Path, variables: Mapping[str, str]) -> AsyncIterator[Up]:
    """A gateway with these variables."""
    async with marking_http(folder / "notes") as url:
        config = folder / "fulcrum.toml"
        await asyncio.to_thread(config.write_text, f'[[server]]\nname = "marks"\nurl = "{url}"\n')
        up = Up(folder / "data", config, folder / "log")
        up.environ = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")}
        up.environ |= variables
        try:
            await up.start()
            yield up
        finally:
            await up.close()


async def called(up: Up) -> None:
    answer = await up.call("mark", "x")
    assert answer is not None
    assert not answer["result"].get("isError")


async def test_a_private_ca_and_a_client_certificate_are_named_by_opentelemetrys_own_variables(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client")
    with open_collector() as collector:
        port = urlsplit(collector.endpoint).port or 0
        with TlsFront(port, authority.issue("collector")) as front:
            front.demand(authority.ca)
            variables = {
                "FULCRUM_TELEMETRY_OTLP_ENDPOINT": f"https://127.0.0.1:{front.port}",
                "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.ca),
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client.cert),
                "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(client.key),
            }
            async with told(tmp_path, variables) as up:
                await called(up)
                assert await up.end(signal.SIGTERM) == 0
        assert collector.traces
        assert collector.metrics


async def test_a_collector_whose_certificate_is_not_right_gets_nothing_and_stops_no_call(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with open_collector() as collector:
        port = urlsplit(collector.endpoint).port or 0
        with TlsFront(port, authority.expired()) as front:
            variables = {
                "FULCRUM_TELEMETRY_OTLP_ENDPOINT": f"https://127.0.0.1:{front.port}",
                "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.ca),
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            }
            async with told(tmp_path, variables) as up:
                for _ in range(3):
                    await called(up)

                async def said() -> bool:
                    return "certificate has expired" in await asyncio.to_thread(up.log.read_text)

                await until(said, "the log says why nothing is exported")
                await called(up)
                assert await up.end(signal.SIGTERM) == 0
            assert "Traceback" not in up.log.read_text()
        assert collector.traces == []
        assert collector.metrics == []
