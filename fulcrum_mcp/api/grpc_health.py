"""The standard gRPC health service (grpc.health.v1), with its two messages encoded by hand.

gRPC takes 0.1 s and 28 MB to import, so this module is imported once the gateway is ready. Insecure port: loopback, or
behind a proxy that speaks TLS.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from fulcrum_mcp.errors import Unavailable

__all__ = ["GrpcHealth", "decode_service", "encode_status"]

_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
_NAMES = frozenset({"", "grpc.health.v1.Health"})
_FIELD_1_TEXT = 0x0A
_FIELD_1_NUMBER = 0x08
_CONTINUES = 0x80


def encode_status(status: int) -> bytes:
    """A HealthCheckResponse: field 1, an enum."""
    return bytes((_FIELD_1_NUMBER, status))


def decode_service(message: bytes) -> str | None:
    """The service of a HealthCheckRequest (field 1, text); None when it is malformed."""
    if not message:
        return ""
    if message[0] != _FIELD_1_TEXT or len(message) < 2 or message[1] & _CONTINUES:  # noqa: PLR2004 (tag and length)
        return None
    length = message[1]
    if len(message) != 2 + length:
        return None
    try:
        return message[2:].decode()
    except UnicodeDecodeError:
        return None


class GrpcHealth:
    """A gRPC server with the health service. `ready` is asked on the event loop, by `Watch` every `pause` seconds."""

    def __init__(self, address: str, ready: Callable[[], bool], *, pause: float = 1.0) -> None:
        self._address = address
        self._ready = ready
        self._pause = pause
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises `Unavailable` when the address is taken."""
        server = grpc.aio.server(maximum_concurrent_rpcs=64, options=[("grpc.so_reuseport", 0)])
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError as exc:
            raise Unavailable(f"gRPC cannot listen on {self._address}; choose another with --grpc") from exc
        await server.start()
        self._server = server

    async def close(self) -> None:
        """Stop at once. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    def _status(self) -> int:
        return _SERVING if self._ready() else _NOT_SERVING

    async def _check(self, message: bytes, context: Any) -> bytes:
        service = decode_service(message)
        if service is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        if service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return encode_status(self._status())

    async def _watch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        service = decode_service(message)
        if service is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        last = 0
        while True:
            status = self._status() if service in _NAMES else _UNKNOWN
            if status != last:
                yield encode_status(status)
                last = status
            await asyncio.sleep(self._pause)
