"""Where the ledger's server is, and how long it is waited for."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import ParseResult, parse_qsl, urlparse

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates

__all__ = ["RedisConfig"]

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_FILES = {"ssl_ca_certs": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key"}
"""Options of the URL, and the settings that say the same."""
_SURE = {"ssl_cert_reqs": ("required",), "ssl_check_hostname": ("true", "True", "1", "yes")}
"""Options that may say only what holds anyway."""
_OPTIONS = (*_FILES, *_SURE, "sentinel_password", "sentinel_username")
_FORMS = "redis://HOST:PORT/DATABASE, rediss://... or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Raises `Invalid`, which never quotes the URL: it may hold a password."""

    url: str = field(repr=False)
    """`redis://`, `rediss://` (TLS), `redis+sentinel://` or `rediss+sentinel://`."""
    prefix: str = "fulcrum:"
    """Begins every key."""
    timeout: float = 0.5
    """Seconds to wait for a connection, and for an answer."""
    keep: int = 86_400
    """Seconds for which ended windows and settled reservations are remembered. Books that nobody has used for half of
    it are not believed any more: the server's clock may have forgotten a part of them."""
    skew: float = 0.0
    """Seconds by which the clocks of a caller and of the server may differ; then nothing is booked. 0: any."""
    ca: Path | None = None
    """PEM file of who may sign the server's certificate; None: whom the system trusts."""
    cert: Path | None = None
    """PEM file of a client certificate."""
    key: Path | None = None
    """Its private key."""

    def __post_init__(self) -> None:
        parsed = _parsed(self.url)
        if parsed.scheme not in _SCHEMES:
            raise Invalid(f"redis.url: the scheme is none of {', '.join(_SCHEMES)}; write {_FORMS}.")
        if not self.hosts:
            raise Invalid(f"redis.url names no host; write {_FORMS}.")
        if self.sentinel and not parsed.path.strip("/"):
            raise Invalid(f"redis.url names no service for the sentinels; write {_FORMS}.")
        for name, value in parse_qsl(parsed.query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise Invalid(f'redis.url: option "{name}" is not one of {", ".join(_OPTIONS)}.')
            if value not in _SURE.get(name, (value,)):
                raise Invalid(f"redis.url: {name} cannot be weakened; name the server's CA in redis.ca.")
        if not self.database.isdecimal():
            raise Invalid(f"redis.url: the database is not a number; write {_FORMS}.")
        if self.timeout <= 0:
            raise Invalid("redis.timeout must be more than 0 seconds.")
        self.certificates.check()
        if self.certificates.named and not self.tls:
            raise Invalid("redis.url does not ask for TLS, and certificates are named; write rediss://.")

    @property
    def tls(self) -> bool:
        """Whether the server, and sentinels, are spoken to over TLS only."""
        return _parsed(self.url).scheme.startswith("rediss")

    @property
    def certificates(self) -> Certificates:
        """What the settings name, or the URL. Raises `Invalid`."""
        named = dict(parse_qsl(_parsed(self.url).query))
        found: dict[str, Path | None] = {"ca": self.ca, "cert": self.cert, "key": self.key}
        for option, setting in _FILES.items():
            if option in named and found[setting] is not None:
                raise Invalid(f"redis.url says {option}, and redis.{setting} is set; take one of them away.")
            if option in named:
                found[setting] = Path(named[option])
        return Certificates("redis", **found)

    @property
    def sentinel(self) -> bool:
        """Whether the hosts are sentinels, which know the primary."""
        return _parsed(self.url).scheme.endswith("+sentinel")

    @property
    def hosts(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of the server, or of each sentinel."""
        places = _parsed(self.url).netloc.rpartition("@")[2]
        found: list[tuple[str, int]] = []
        for place in filter(None, places.split(",")):
            try:
                one = urlparse(f"//{place}")
                host, port = one.hostname, one.port or (26_379 if self.sentinel else 6_379)
            except ValueError:
                raise Invalid(f"redis.url: a port is not a number; write {_FORMS}.") from None
            if host:
                found.append((host, port))
        return tuple(found)

    @property
    def service(self) -> str:
        """What the sentinels call the primary."""
        return _parsed(self.url).path.strip("/").partition("/")[0] if self.sentinel else ""

    @property
    def database(self) -> str:
        """The database's number, as written; 0 when none is."""
        path = _parsed(self.url).path.strip("/")
        return (path.partition("/")[2] if self.sentinel else path) or "0"

    @property
    def place(self) -> str:
        """The address for people, without user and password."""
        parsed = _parsed(self.url)
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{parsed.scheme}://{hosts}/{parsed.path.strip('/') or '0'}"


def _parsed(url: str) -> ParseResult:
    try:
        return urlparse(url)
    except ValueError:
        raise Invalid(f"redis.url cannot be read; write {_FORMS}.") from None
