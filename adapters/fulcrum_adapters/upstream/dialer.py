"""The one place that opens outgoing connections: resolve, judge every address, connect to what was judged.

There is no second look-up between the judgement and the connection, so a name cannot be rebound in between. `trusted`
dialers (URLs from the operator's own file) go anywhere; the others refuse whatever is not a public unicast address.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from fulcrum_mcp.errors import Invalid

from .fault import Fault

__all__ = ["Address", "Dialer", "Resolver", "refusal", "tls_context"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_P = TypeVar("_P", bound=asyncio.Protocol)

_V4 = 4
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
_EMBEDDING = (
    (ipaddress.IPv6Network("::/96"), 0),  # IPv4-compatible
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated
)
_LOCAL_V6 = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("fec0::/10"),
    ipaddress.IPv6Network("5f00::/16"),
)


class Address(NamedTuple):
    """One resolved address."""

    family: socket.AddressFamily
    host: str


Resolver = Callable[[str, int], Awaitable[list[Address]]]


def refusal(address: str, allowed: Collection[_Network] = ()) -> str | None:
    """Why an address may not be dialled for a caller; None when it may."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    judged: list[_Ip] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        judged += [
            ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFFFFFF) for network, shift in _EMBEDDING if ip in network
        ]
    if any(part in network for part in judged for network in allowed if part.version == network.version):
        return None
    kinds = (_kind(part) for part in judged)
    return "link-local" if "%" in address else next((kind for kind in kinds if kind is not None), None)


def _kind(ip: _Ip) -> str | None:
    for kind, is_it in (
        ("multicast", ip.is_multicast),
        ("unspecified", ip.is_unspecified),
        ("loopback", ip.is_loopback),
        ("link-local", ip.is_link_local or ip in _METADATA),
    ):
        if is_it:
            return kind
    embeds = isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network, _ in _EMBEDDING)
    public = embeds or (ip.is_global and not any(ip in network for network in _LOCAL_V6))
    return None if public else "private"


@lru_cache(maxsize=8)
def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """One context for all (building one costs 20-32 ms); its own only where an operator names certificates.

    Raises:
        Invalid: the file cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(cafile=ca_file)
    except OSError as exc:
        raise Invalid(f"ca_file {ca_file}: no certificates can be read from it; give a PEM file") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [Address(socket.AF_INET if literal.version == _V4 else socket.AF_INET6, host)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(Address(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found))


class Dialer:
    """Opens connections to judged addresses only."""

    def __init__(
        self, allow_private: bool | Collection[str] = False, *, trusted: bool = False, resolver: Resolver = _resolve
    ) -> None:
        self._free = trusted or allow_private is True
        try:
            self._allowed = () if isinstance(allow_private, bool) else tuple(map(ipaddress.ip_network, allow_private))
        except ValueError as exc:
            raise Invalid(f"allow_private: {exc}; write networks such as 10.0.0.0/8") from exc
        self._resolver = resolver

    async def resolve(self, host: str, port: int) -> list[Address]:
        """All addresses of a host. Raises `Fault` when there is none or one of them may not be dialled."""
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as exc:
            raise Fault(
                "its host name does not resolve", sent=False, connect=True, remedy="correct its url or the name server"
            ) from exc
        if not addresses:
            raise Fault("its host name has no address", sent=False, connect=True, remedy="correct its url")
        if not self._free:
            for address in addresses:
                kind = refusal(address.host, self._allowed)
                if kind is not None:
                    raise Fault(
                        f"it resolves to a {kind} address, which is not dialled for a caller",
                        sent=False,
                        remedy="use a public address, or have the operator allow its network",
                    )
        return addresses

    async def connect(
        self, factory: Callable[[], _P], host: str, port: int, *, tls: ssl.SSLContext | None, seconds: float
    ) -> _P:
        """Connect to the first judged address that answers; all of it within `seconds`. Raises `Fault`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        reason, timeout = "", False
        try:
            async with asyncio.timeout_at(end):
                addresses = await self.resolve(host, port)
        except TimeoutError as exc:
            raise Fault(
                f"its host name does not resolve within {seconds:g} s", sent=False, timeout=True, connect=True
            ) from exc
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            now = loop.time()
            until = end if left == 1 else now + (end - now) / 2
            try:
                async with asyncio.timeout_at(until):
                    _, protocol = await loop.create_connection(
                        factory,
                        address,
                        port,
                        family=family,
                        ssl=tls,
                        server_hostname=host.rstrip(".") if tls else None,
                    )
            except ssl.SSLCertVerificationError as exc:
                reason, timeout = f"its certificate is not accepted ({exc.verify_message})", False
            except ssl.SSLError as exc:
                reason, timeout = f"TLS failed ({exc.reason or 'handshake'})", False
            except TimeoutError:
                reason, timeout = f"no connection within {seconds:g} s", True
            except ConnectionRefusedError:
                reason, timeout = "connection refused", False
            except OSError as exc:
                reason, timeout = f"no connection ({exc.strerror or 'reset'})", False
            else:
                return protocol
        raise Fault(reason, sent=False, timeout=timeout, connect=True, remedy="start it or correct its url")
