"""Where NATS is and how its streams are kept. The URL may hold a password: it never shows."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates

__all__ = ["Address", "JetStreamConfig"]

_PORT = 4222
_MIB = 1 << 20
_LEAST = 1 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """One server, without what is secret about it in its text."""

    url: str
    tls: bool
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JetStreamConfig:
    """`url`: `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]` or `tls://...`, several with commas."""

    url: str = field(repr=False)
    credentials: Path | None = None
    """A `.creds` file."""
    replicas: int = 1
    """Of every stream."""
    timeout: float = 5.0
    """Seconds for a connection, an answer of the server, the acknowledgement of what was published."""
    max_bytes: int = 512 * _MIB
    """What the audit stream may hold that no processor has stored; beyond it, it refuses and the spools keep."""
    sync_always: bool = False
    """The operator says that every server runs with `sync_interval: always`."""
    ca: Path | None = None
    """PEM file of who may sign the servers' certificates; None: whom the system trusts."""
    cert: Path | None = None
    """PEM file of a client certificate."""
    key: Path | None = None
    """Its private key."""

    def __post_init__(self) -> None:
        secured = {address.tls for address in self.addresses()}
        if not secured:
            raise Invalid("nats.url: no server is named; write nats://HOST:4222")
        if len(secured) > 1:
            raise Invalid("nats.url: some servers with tls:// and some without; write tls:// before all of them")
        self.certificates.check()
        if self.certificates.named and not secured.pop():
            raise Invalid("nats.url does not ask for TLS, and certificates are named; write tls://")
        if not 1 <= self.replicas <= 5:  # noqa: PLR2004 - the server's own bounds
            raise Invalid(f"nats.replicas = {self.replicas} is not between 1 and 5")
        if self.max_bytes < _LEAST:
            raise Invalid(f"nats.max_bytes = {self.max_bytes} is too small for the audit stream; give it some MiB")
        if self.credentials is not None and not self.credentials.is_file():
            raise Invalid(f"nats.credentials: there is no file {self.credentials}; name the .creds file")

    def addresses(self) -> tuple[Address, ...]:
        """All servers, in the order of the URL. Raises `Invalid`, never quoting what may be secret."""
        return tuple(_address(part.strip(), number) for number, part in enumerate(self.url.split(","), 1) if part)

    @property
    def certificates(self) -> Certificates:
        """What the settings name."""
        return Certificates("nats", self.ca, self.cert, self.key)

    @property
    def place(self) -> str:
        """The servers for messages: no user, token or password."""
        return ", ".join(address.url.partition("//")[2] for address in self.addresses())


def _address(text: str, number: int) -> Address:
    where = f"nats.url, server {number}"
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        raise Invalid(f"{where}: not a URL; write nats://HOST:4222") from None
    if parts.scheme not in {"nats", "tls"}:
        raise Invalid(f"{where}: the scheme must be nats or tls")
    if not host or parts.path.strip("/") or parts.query:
        raise Invalid(f"{where}: only a host and a port belong there; write nats://HOST:4222")
    shown = f"[{host}]" if ":" in host else host
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    token = user if password is None else None
    tls = parts.scheme == "tls"
    return Address(f"{parts.scheme}://{shown}:{port}", tls, user if token is None else None, password, token or None)
