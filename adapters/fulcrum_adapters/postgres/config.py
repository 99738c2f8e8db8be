"""Where the database is, and how long it may take."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from fulcrum_adapters.postgres.tls import check_tls, tls_parameters, unverified
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates

__all__ = ["PostgresConfig"]

_FORM = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / ? # % in the password percent-encoded"
_HOST = re.compile(r"[A-Za-z0-9._:%-]*|/[^@]*")
_PORT = re.compile(r"\d{0,5}")
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """`url` is a secret: it never shows, nor is it quoted in an error. `timeout` in seconds. Raises `Invalid`."""

    url: str = field(repr=False)
    pool: int = 8
    """Connections at most."""
    timeout: float = 5.0
    """For a connection (at least 2 s, for each address of the host) and for a statement."""
    ca: Path | None = None
    """PEM file of who may sign the server's certificate; naming one means `sslmode=verify-full`."""
    cert: Path | None = None
    """PEM file of a client certificate."""
    key: Path | None = None
    """Its private key; libpq wants it readable by its owner only."""

    def __post_init__(self) -> None:
        parts = self._parts()
        hosts, ports = (str(parts.get(name) or "").split(",") for name in ("host", "port"))
        if not all(map(_HOST.fullmatch, hosts)) or not all(map(_PORT.fullmatch, ports)):
            raise Invalid(f"the URL of postgres is not in the right form; {_FORM}.")
        check_tls(parts, self.certificates)
        if self.pool < 1 or not self.timeout > 0:
            raise Invalid("postgres: pool must be 1 or more and timeout above 0.")

    def _parts(self) -> dict[str, Any]:
        if not self.url.startswith(("postgresql://", "postgres://")):
            raise Invalid(f"the URL of postgres is not in the right form; {_FORM}.")
        try:
            return dict(conninfo_to_dict(self.url))
        except psycopg.Error:
            raise Invalid(f"the URL of postgres is not in the right form; {_FORM}.") from None  # it quotes the URL

    @property
    def certificates(self) -> Certificates:
        """What the settings name."""
        return Certificates("postgres", self.ca, self.cert, self.key)

    @property
    def secured(self) -> bool:
        """TLS or nothing."""
        return self.parameters().get("sslmode") in {"require", "verify-ca", "verify-full"}

    @property
    def unverified(self) -> str | None:
        """What may happen on the way, where nobody has chosen that (`sslmode=disable` does); None: nothing."""
        return unverified(self._parts(), self.certificates)

    @property
    def place(self) -> str:
        """`HOST:PORT/DATABASE`, for people."""
        parts = self._parts()
        where = f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}"
        return f"{where}/{parts.get('dbname') or parts.get('user') or ''}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not stand in any message."""
        parts = self._parts()
        return tuple(str(parts[name]) for name in ("password", "sslpassword") if parts.get(name))

    def parameters(self) -> dict[str, Any]:
        """The URL's, and ours where it says nothing. Contains the password."""
        ours = {
            **_KEEPALIVE,
            "tcp_user_timeout": int(self.timeout * 1000),
            "application_name": "fulcrum",
            "connect_timeout": max(round(self.timeout), 2),
            "client_encoding": "UTF8",
        }
        parts = self._parts()
        return {**ours, **parts, **tls_parameters(parts, self.certificates)}
