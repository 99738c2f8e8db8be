import asyncio
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest
from wire_server import answer, http_upstream, post, wire_server

from fulcrum_adapters.upstream.config import HttpUpstreamConfig
from fulcrum_adapters.upstream.dialer import Address, Dialer, refusal, tls_context
from fulcrum_adapters.upstream.fault import Fault
from fulcrum_adapters.upstream.http import HttpUpstream
from fulcrum_mcp.errors import Invalid, UpstreamFailed

pytestmark = pytest.mark.anyio

HOSTS = """
127.0.0.1 127.1 127.0.1 127.255.255.254 2130706433 0x7f000001 0x7F.0.0.1 0177.0.0.1 017700000001 0x7f.1
127.0.0.1. 0 0.0.0.0 0x0 10.0.0.1 10.1 167772161 0xa.1 172.16.0.1 172.31.255.255 192.168.1.1 192.168.257
3232235777 169.254.169.254 0xa9fea9fe 2852039166 0251.0376.0251.0376 169.254.43518 100.64.0.1 100.100.100.200
192.0.0.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 168.63.129.16 localhost LOCALHOST
localhost. [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:0:7f00:1] [::127.0.0.1]
[64:ff9b::7f00:1] [64:ff9b::a00:1] [64:ff9b:1::a00:1] [2002:7f00:1::] [2002:a00:1::1] [2001::1] [2001:db8::1]
[fc00::1] [fd00:ec2::254] [fe80::1] [febf::1] [fec0::1] [ff02::1] [::ffff:169.254.169.254] [fe80::1%25lo]
[::1%25lo] user@127.0.0.1 127.0.0.1@127.0.0.1 127.0.0.1\\@example.com
""".split()  # noqa: SIM905 - a list of words


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that anything tries to connect to, by whichever way."""
    seen: list[Any] = []

    async def sock_connect(_self: object, _sock: object, address: object) -> None:
        seen.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return seen


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
async def test_no_spelling_of_a_private_address_is_dialled_for_a_caller(client: Any, connects: list[Any]) -> None:
    assert len(HOSTS) >= 60
    for host in HOSTS:
        for scheme in ("http", "https"):
            with pytest.raises((UpstreamFailed, Invalid)) as caught:
                await _try(f"{scheme}://{host}:9/mcp", client)
            assert not isinstance(caught.value, UpstreamFailed) or not caught.value.sent
    assert connects == []


async def test_the_connect_hook_sees_a_trusted_connection(connects: list[Any]) -> None:
    with pytest.raises(UpstreamFailed):
        await _try("http://127.0.0.1:9/mcp", "pool", trusted=True)
    assert connects == [("127.0.0.1", 9)]


async def _try(url: str, client: Any, *, trusted: bool = False) -> None:
    upstream = HttpUpstream(HttpUpstreamConfig(name="files", url=url, client=client, trusted=trusted))
    try:
        await upstream.send(post())
    finally:
        await upstream.close()


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
async def test_name_that_is_rebound_after_the_check_is_not_dialled(client: Any, connects: list[Any]) -> None:
    asked = 0

    async def rebinding(_host: str, _port: int) -> list[Address]:
        nonlocal asked
        asked += 1
        return [Address(socket.AF_INET, "93.184.216.34" if asked % 2 else "127.0.0.1")]

    config = HttpUpstreamConfig(name="files", url="http://rebind.example:9/mcp", client=client)
    upstream = HttpUpstream(config, dialer=Dialer(resolver=rebinding))
    for _ in range(4):
        with pytest.raises(UpstreamFailed):
            await upstream.send(post())
    await upstream.close()
    assert connects == [("93.184.216.34", 9)] * 2
    assert asked == 4


async def test_one_private_address_among_public_ones_refuses_the_name(connects: list[Any]) -> None:
    async def mixed(_host: str, _port: int) -> list[Address]:
        return [Address(socket.AF_INET, "93.184.216.34"), Address(socket.AF_INET, "10.0.0.1")]

    with pytest.raises(Fault, match="private address"):
        await Dialer(resolver=mixed).connect(asyncio.Protocol, "x.example", 80, tls=None, seconds=1)
    assert connects == []


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"]
)
def test_public_address_may_be_dialled(address: str) -> None:
    assert refusal(address) is None


def test_allowed_network_may_be_dialled_and_its_neighbours_not() -> None:
    dialer = Dialer({"10.1.0.0/16", "fd00::/8"})
    assert refusal("10.1.2.3", dialer._allowed) is None
    assert refusal("::ffff:10.1.2.3", dialer._allowed) is None
    assert refusal("fd00::1", dialer._allowed) is None
    assert refusal("10.2.0.1", dialer._allowed) == "private"
    assert refusal("127.0.0.1", dialer._allowed) == "loopback"


def test_allowed_network_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="allow_private"):
        Dialer({"10.0.0.1/8"})


async def test_host_and_name_stay_while_the_checked_address_is_dialled() -> None:
    async def resolver(_host: str, _port: int) -> list[Address]:
        return [Address(socket.AF_INET, "127.0.0.1")]

    async with wire_server(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as server:
        config = HttpUpstreamConfig(name="files", url=f"http://mcp.example:{server.port}/")
        upstream = HttpUpstream(config, dialer=Dialer({"127.0.0.0/8"}, resolver=resolver))
        await upstream.send(post())
        await upstream.close()
    assert f"\r\nhost: mcp.example:{server.port}\r\n".encode() in server.requests[0]


async def test_next_address_is_tried_when_one_refuses() -> None:
    async def resolver(_host: str, _port: int) -> list[Address]:
        return [Address(socket.AF_INET, "127.0.0.2"), Address(socket.AF_INET, "127.0.0.1")]

    async with wire_server(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as server:
        config = HttpUpstreamConfig(name="files", url=f"http://mcp.example:{server.port}/")
        upstream = HttpUpstream(config, dialer=Dialer(trusted=True, resolver=resolver))
        assert (await upstream.send(post())).status == 200
        await upstream.close()


@pytest.mark.parametrize("client", ["pool", "aiohttp"])
async def test_name_that_does_not_resolve_is_a_failure_with_a_remedy(client: Any) -> None:
    async def nothing(_host: str, _port: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    config = HttpUpstreamConfig(name="files", url="http://nowhere.example/mcp", client=client)
    upstream = HttpUpstream(config, dialer=Dialer(resolver=nothing))
    with pytest.raises(UpstreamFailed, match="does not resolve; correct its url") as caught:
        await upstream.send(post())
    assert not caught.value.sent
    await upstream.close()


async def test_resolver_that_hangs_is_a_timeout() -> None:
    async def hanging(_host: str, _port: int) -> list[Address]:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(5), pytest.raises(Fault, match="does not resolve within") as caught:
        await Dialer(resolver=hanging).connect(asyncio.Protocol, "x", 1, tls=None, seconds=0.05)
    assert caught.value.timeout


def test_tls_context_is_shared_and_a_bad_file_of_certificates_named() -> None:
    assert tls_context() is tls_context()
    with pytest.raises(Invalid, match="ca_file"):
        tls_context(Path("/nowhere/ca.pem"))


async def test_untrusted_upstream_on_loopback_is_refused_with_a_remedy() -> None:
    async with wire_server(answer(b"")) as server, http_upstream(server.port, trusted=False) as upstream:
        with pytest.raises(UpstreamFailed, match=r"loopback address, .*; use a public address") as caught:
            await upstream.send(post())
        assert not caught.value.sent
        assert server.connections == 0
