"""What a request carries to say who it is, read from its head in one pass."""

from collections.abc import Iterable
from typing import Any

from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["FORWARDING", "credentials_of"]

FORWARDING = frozenset(
    {
        b"cf-connecting-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-original-host",
        b"x-real-ip",
    }
)
"""Headers that a proxy adds: the peer's address is then not the client's."""


def credentials_of(headers: Iterable[tuple[bytes, bytes]], client: Any) -> Credentials:
    """From an ASGI scope's `headers` and `client`. Raises `Unauthenticated` for a header that comes twice."""
    authorization: str | None = None
    api_key: str | None = None
    forwarded = False
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                raise Unauthenticated("Authorization comes twice; send it once")
            authorization = value.decode("latin-1")
        elif name == b"x-api-key":
            if api_key is not None:
                raise Unauthenticated("X-API-Key comes twice; send it once")
            api_key = value.decode("latin-1")
        elif name in FORWARDING:
            forwarded = True
    host = client[0] if client else ""
    loopback = host == "::1" or host.startswith(("127.", "::ffff:127."))
    return Credentials(authorization, api_key, forwarded, loopback)
