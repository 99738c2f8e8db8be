"""Connections over TLS: made with the files as they are now, and not used before the server has accepted us too."""

import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis import exceptions
from redis.connection import SSLConnection
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates, after_handshake

__all__ = ["SentinelTlsConnection", "TlsConnection", "TlsSentinels"]


class TlsConnection(SSLConnection):  # if its own way were ever taken, that is TLS with whom the system trusts
    """Verifies chain and host name, always."""

    def __init__(self, *, certificates: Certificates, **settings: Any) -> None:
        self._certificates = certificates
        super().__init__(**settings)

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        try:
            context = self._certificates.context()
        except Invalid as fault:
            raise exceptions.ConnectionError(str(fault)) from fault
        return context.wrap_socket(sock, server_hostname=self.host)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """In TLS 1.3 a server says after our part of the handshake whether it accepts our certificate."""
        send: Any = self.send_command  # redis-py has no types here
        try:
            super().on_connect_check_health(check_health)
            send("PING", check_health=False)
            self.read_response()
        except exceptions.NoPermissionError:  # an answer as well
            return
        except exceptions.ConnectionError as fault:
            if type(fault) is not exceptions.ConnectionError:  # an answer
                raise
            raise exceptions.ConnectionError(after_handshake("redis")) from fault


class SentinelTlsConnection(SentinelManagedConnection, TlsConnection):
    """The same, to the primary that sentinels name."""


class _Asking(TlsConnection):
    """To a sentinel; the client that asks several of them keeps to itself why none has answered."""

    def __init__(self, *, asker: "TlsSentinels", **settings: Any) -> None:
        self._asker = asker
        super().__init__(**settings)

    def connect_check_health(self, *given: Any, **named: Any) -> None:
        try:
            super().connect_check_health(*given, **named)
        except exceptions.ConnectionError as fault:
            self._asker.fault = fault
            raise


class TlsSentinels(Sentinel):
    """Sentinels that are asked over TLS; with what was wrong with the last of them when none has answered."""

    def __init__(self, hosts: Sequence[tuple[str, int]], settings: Mapping[str, Any]) -> None:
        make: Any = super().__init__  # redis-py has no types here
        make(())
        self.fault: Exception | None = None
        self.sentinels = [redis.Redis(connection_pool=self._pool(host, port, settings)) for host, port in hosts]

    def _pool(self, host: str, port: int, settings: Mapping[str, Any]) -> "redis.ConnectionPool":
        return redis.ConnectionPool(connection_class=_Asking, asker=self, host=host, port=port, **settings)

    def discover_master(self, service_name: str) -> Any:
        """Where the primary is."""
        discover: Any = super().discover_master
        self.fault = None
        try:
            return discover(service_name)
        except MasterNotFoundError as fault:
            raise fault from self.fault
