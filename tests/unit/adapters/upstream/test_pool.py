"""Places, waiters and the breaker: what the pool promises beyond one connection."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wire_server import Peer, answer, http_upstream, post, wire_server

from fulcrum_adapters.upstream.config import HttpUpstreamConfig
from fulcrum_adapters.upstream.dialer import Address, Dialer
from fulcrum_adapters.upstream.http import HttpUpstream
from fulcrum_mcp.errors import UpstreamFailed

pytestmark = pytest.mark.anyio

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Gate:
    """Answers one waiting request each time it is told to; remembers who came in which order."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.permits = asyncio.Semaphore(0)
        self.arrived = asyncio.Condition()

    async def script(self, peer: Peer) -> None:
        while True:
            raw = await peer.request()
            self.order.append(raw.rpartition(b"\r\n\r\n")[2])
            async with self.arrived:
                self.arrived.notify_all()
            await self.permits.acquire()
            await peer.send(EMPTY)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.order) == count)


async def call(upstream: HttpUpstream, message: bytes) -> bytes:
    return await (await upstream.send(post(message))).read()


async def queued(upstream: HttpUpstream, message: bytes, waiting: int) -> "asyncio.Task[bytes]":
    """A call that stands in the queue, as its `waiting`-th."""
    task = asyncio.create_task(call(upstream, message))
    pool: Any = upstream._transport
    async with asyncio.timeout(5):
        while len(pool._waiting) < waiting:  # noqa: ASYNC110 - turns of the loop, not time
            await asyncio.sleep(0)
    return task


async def test_waiters_are_served_in_order_and_connections_stay_below_the_limit() -> None:
    gate = Gate()
    async with wire_server(gate.script) as server, http_upstream(server.port, max_connections=1) as upstream:
        first = asyncio.create_task(call(upstream, b"0"))
        await gate.until(1)
        rest = [await queued(upstream, b"%d" % n, n) for n in (1, 2, 3)]
        for _ in range(4):
            gate.permits.release()
        with anyio.fail_after(5):
            assert await asyncio.gather(first, *rest) == [b"{}"] * 4
        assert gate.order == [b"0", b"1", b"2", b"3"]
        assert server.connections == 1


async def test_waiter_beyond_the_bound_is_refused_unsent() -> None:
    gate = Gate()
    async with (
        wire_server(gate.script) as server,
        http_upstream(server.port, max_connections=1, max_waiting=1) as upstream,
    ):
        first = asyncio.create_task(call(upstream, b"0"))
        await gate.until(1)
        second = await queued(upstream, b"1", 1)
        with pytest.raises(UpstreamFailed, match="too many calls wait; try again later") as caught:
            await call(upstream, b"2")
        assert not caught.value.sent
        gate.permits.release()
        gate.permits.release()
        await asyncio.gather(first, second)


async def test_waiter_gives_up_after_its_time_unsent() -> None:
    gate = Gate()
    async with (
        wire_server(gate.script) as server,
        http_upstream(server.port, max_connections=1, queue_seconds=0.05) as upstream,
    ):
        first = asyncio.create_task(call(upstream, b"0"))
        await gate.until(1)
        with anyio.fail_after(5), pytest.raises(UpstreamFailed, match=r"stayed busy for 0\.05 s") as caught:
            await call(upstream, b"1")
        assert (caught.value.sent, caught.value.timeout) == (False, True)
        gate.permits.release()
        await first
        assert gate.order == [b"0"]


async def test_cancelled_waiter_passes_its_turn_on() -> None:
    gate = Gate()
    async with wire_server(gate.script) as server, http_upstream(server.port, max_connections=1) as upstream:
        first = asyncio.create_task(call(upstream, b"0"))
        await gate.until(1)
        second = await queued(upstream, b"1", 1)
        third = await queued(upstream, b"2", 2)
        pool: Any = upstream._transport
        hand_over = pool.released

        def released(connection: object) -> None:
            hand_over(connection)
            second.cancel()  # the connection is his already, and he does not know yet

        pool.released = released
        gate.permits.release()
        gate.permits.release()
        with anyio.fail_after(5):
            assert list(await asyncio.gather(first, third)) == [b"{}"] * 2
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (gate.order, server.connections) == ([b"0", b"2"], 1)


async def test_place_of_a_cancelled_call_goes_to_the_next_waiter() -> None:
    gate = Gate()
    async with wire_server(gate.script) as server, http_upstream(server.port, max_connections=1) as upstream:
        first = asyncio.create_task(call(upstream, b"0"))
        await gate.until(1)
        second = await queued(upstream, b"1", 1)
        first.cancel()
        await gate.until(2)
        gate.permits.release()
        gate.permits.release()
        with anyio.fail_after(5):
            assert await second == b"{}"
        assert server.connections == 2


async def test_no_place_leaks_over_failures_cancellations_and_successes() -> None:
    calls = 0

    async def script(peer: Peer) -> None:
        nonlocal calls
        while True:
            await peer.request()
            calls += 1
            if calls % 5 == 0:
                peer.reset()
                return
            await peer.send(EMPTY if calls % 7 else EMPTY[:-1] + b"}HTTP")

    async with wire_server(script) as server, http_upstream(server.port, max_connections=3) as upstream:
        tasks = [asyncio.create_task(call(upstream, b"%d" % n)) for n in range(300)]
        for n, task in enumerate(tasks):
            if n % 11 == 0:
                await asyncio.sleep(0)
                task.cancel()
        with anyio.fail_after(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(result == b"{}" for result in results) > 100
        assert all(result == b"{}" or isinstance(result, UpstreamFailed | asyncio.CancelledError) for result in results)
        pool: Any = upstream._transport
        assert pool._places + len(pool._open) == 3
        assert not pool._waiting


async def test_breaker_fails_fast_then_one_call_probes_and_closes_it() -> None:
    now = 0.0
    async with wire_server(answer(EMPTY)) as server:
        port = server.port
    config = HttpUpstreamConfig(name="files", url=f"http://127.0.0.1:{port}/mcp")
    upstream = HttpUpstream(config, clock=lambda: now)
    for _ in range(5):
        with pytest.raises(UpstreamFailed, match="connection refused"):
            await upstream.send(post())
    with pytest.raises(UpstreamFailed, match=r"5 times in a row; not tried for another 0\.5 s; start it") as caught:
        await upstream.send(post())
    assert not caught.value.sent
    now = 0.5
    with pytest.raises(UpstreamFailed, match="connection refused"):
        await upstream.send(post())
    with pytest.raises(UpstreamFailed, match=r"another 1\.0 s"):
        await upstream.send(post())
    now = 1.5
    server_again = await asyncio.start_server(_answer, "127.0.0.1", port)
    async with server_again:
        assert (await upstream.send(post())).status == 200
        assert (await upstream.send(post())).status == 200
        await upstream.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(2):
        await reader.readuntil(b'"ping"}')
        writer.write(EMPTY)
    await reader.read()
    writer.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mcp.example")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@asynccontextmanager
async def tls_server(certificate: tuple[Path, Path], raw: bytes) -> AsyncIterator[Callable[[str], str]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with wire_server(answer(raw, close=b"chunked" in raw), tls=context) as server:
        yield lambda host: f"https://{host}:{server.port}/mcp"


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
async def test_tls_upstream_with_a_known_certificate_answers(client: Any, certificate: tuple[Path, Path]) -> None:
    async with (
        tls_server(certificate, EMPTY) as url,
        http_upstream(0, client, url=url("127.0.0.1"), ca_file=certificate[0]) as upstream,
    ):
        for _ in range(3):
            assert await call(upstream, b"{}") == b"{}"


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
async def test_tls_upstream_that_breaks_off_is_a_failure(client: Any, certificate: tuple[Path, Path]) -> None:
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
    async with (
        tls_server(certificate, raw) as url,
        http_upstream(0, client, url=url("127.0.0.1"), ca_file=certificate[0]) as upstream,
    ):
        with anyio.fail_after(5), pytest.raises(UpstreamFailed):
            await call(upstream, b"{}")


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_certificate_unknown_or_of_another_host_is_refused_unsent(
    client: Any, host: str, certificate: tuple[Path, Path]
) -> None:
    ca_file = certificate[0] if host == "localhost" else None
    async with (
        tls_server(certificate, EMPTY) as url,
        http_upstream(0, client, url=url(host), ca_file=ca_file) as upstream,
    ):
        with anyio.fail_after(5), pytest.raises(UpstreamFailed) as caught:
            await call(upstream, b"{}")
        assert not caught.value.sent


async def test_cancelled_probe_leaves_the_next_call_to_probe() -> None:
    now, asked, probing = 0.0, 0, asyncio.Event()

    async def resolver(_host: str, _port: int) -> list[Address]:
        nonlocal asked
        asked += 1
        if asked == 6:
            probing.set()
            await anyio.sleep_forever()
        raise OSError

    config = HttpUpstreamConfig(name="files", url="http://mcp.example/")
    upstream = HttpUpstream(config, dialer=Dialer(resolver=resolver), clock=lambda: now)
    for _ in range(5):
        with pytest.raises(UpstreamFailed, match="does not resolve"):
            await upstream.send(post())
    now = 0.5
    probe = asyncio.create_task(upstream.send(post()))
    with anyio.fail_after(5):
        await probing.wait()
        with pytest.raises(UpstreamFailed, match="in a row"):
            await upstream.send(post())
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        with pytest.raises(UpstreamFailed, match="does not resolve"):
            await upstream.send(post())
    assert asked == 7
