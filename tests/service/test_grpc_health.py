"""The gRPC health service, asked by gRPC's own client."""

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.api.grpc_health import GrpcHealth, decode_service
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.service]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_check_and_watch_follow_readiness() -> None:
    ready = [False]
    health = GrpcHealth("127.0.0.1:0", lambda: ready[0], pause=0.01)
    await health.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        assert await check(b"", timeout=10) == b"\x08\x02"
        stream = watch(b"", timeout=10)
        assert await stream.read() == b"\x08\x02"
        ready[0] = True
        assert await stream.read() == b"\x08\x01"
        stream.cancel()
        assert await check(b"\x0a\x15grpc.health.v1.Health", timeout=10) == b"\x08\x01"
        for message, code in ((b"\x0a\x01x", grpc.StatusCode.NOT_FOUND), (b"\xff", grpc.StatusCode.INVALID_ARGUMENT)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(message, timeout=10)
            assert caught.value.code() == code
    await health.close()
    await health.close()


async def test_a_taken_port_is_named() -> None:
    first = GrpcHealth("127.0.0.1:0", lambda: True)
    await first.start()
    second = GrpcHealth(f"127.0.0.1:{first.port}", lambda: True)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{first.port}; choose another with --grpc"):
        await second.start()
    await first.close()


@given(st.binary(max_size=12))
def test_any_bytes_are_a_service_or_nothing(message: bytes) -> None:
    found = decode_service(message)
    assert found is None or found.encode() == message[2:]
