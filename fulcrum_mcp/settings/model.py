"""What Fulcrum was told: frozen, complete, checked once at start. Values of headers and environments never show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, StrictStr

from fulcrum_mcp.core.budget import Budget

__all__ = [
    "AuditSettings",
    "Bind",
    "LimitsSettings",
    "NatsSettings",
    "OAuthSettings",
    "PolicySettings",
    "PostgresSettings",
    "RedisSettings",
    "ServerSettings",
    "Settings",
    "TelemetrySettings",
]

Count = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False, strict=True)]
Strings = tuple[StrictStr, ...]


class Frozen(BaseModel):
    """A closed, immutable piece of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Bind(Frozen):
    """Where to listen."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]

    @property
    def loopback(self) -> bool:
        """True when nobody but this machine can connect."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ServerSettings(Frozen):
    """One upstream: a command to run (stdio) or a URL (Streamable HTTP)."""

    name: str
    command: tuple[str, ...] | None = Field(default=None, repr=False)
    url: str | None = Field(default=None, repr=False)
    headers: Mapping[str, SecretStr] = {}
    env: Mapping[str, SecretStr] = {}
    cwd: Path | None = None
    labels: Mapping[str, str] = {}
    timeout: float = 300.0
    """Seconds an answer may stall: until its head, and between two pieces of a stream."""
    client: Literal["pool", "aiohttp"] = "pool"
    idle_timeout: float = 600.0
    """Seconds after which an unused process of a stdio server is ended."""
    max_processes: int = 64
    shown: str = ""
    """The command line or URL as written, before `${VAR}` was replaced: for people."""
    origin: str = ""
    """The file and line that named it."""


class AuditSettings(Frozen):
    """How records are kept."""

    durability: Literal["sync", "os", "stream"] = "sync"
    inputs: Literal["redacted", "none", "full"] = "redacted"
    inputs_days: Count = 30
    max_spool: Count = 1 << 30
    """Bytes that the spool may hold before calls are denied."""


class PolicySettings(Frozen):
    """How policies are judged."""

    engine: Literal["rego", "opa"] = "rego"
    opa_url: StrictStr | None = None
    timeout: Seconds = 1.0
    """Seconds an external engine may take; then the call is denied."""
    max_input: Count = 256 * 1024
    """Bytes of the input document; beyond it the call is denied."""
    data: Mapping[str, Any] = {}
    """Data documents: `data` in Rego."""


class LimitsSettings(Frozen):
    """Sizes and counts that keep one client from hurting the others."""

    max_request: Count = 4 * 1024 * 1024
    """Bytes of one message from a client."""
    max_response: Count = 64 * 1024 * 1024
    """Bytes of one message from an upstream."""
    max_depth: Count = 128
    """Nesting of a message."""
    in_flight: Count = 1000
    """Requests at a time."""
    in_flight_per_key: Count = 200


class CertificateSettings(Frozen):
    """PEM files of one part's TLS."""

    ca: Path | None = None
    """Who may sign the server's certificate; None: whom the system trusts."""
    cert: Path | None = None
    """A client certificate, with its chain."""
    key: Path | None = None
    """Its private key."""


class PostgresSettings(CertificateSettings):
    """The store of an installation with several gateways."""

    url: SecretStr
    """`postgresql://USER:PASSWORD@HOST:PORT[,HOST:PORT]/DATABASE?sslmode=...`; the user may act as every role."""
    pool: Annotated[int, Field(strict=True, ge=1, le=100)] = 8
    """Connections of one process."""
    timeout: Seconds = 5.0
    """Seconds for a connection and for a statement."""
    migrate: StrictBool = True
    """Bring the schema up to date at start, behind a lock."""


class RedisSettings(CertificateSettings):
    """The ledger that several gateways share; Valkey or Redis, one primary."""

    url: SecretStr
    """`redis://`, `rediss://`, or `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE`."""
    prefix: StrictStr = "fulcrum:"
    """Begins every key."""
    timeout: Seconds = 0.5
    """Seconds to wait for an answer; then the calls are denied."""


class NatsSettings(CertificateSettings):
    """JetStream, which carries records to the event-processors and news of changes to the gateways."""

    url: SecretStr
    """`nats://HOST:PORT` or `tls://`, several with commas; with a user or token where one is needed."""
    credentials: Path | None = None
    """A `.creds` file."""
    sync_always: StrictBool = False
    """The servers run with `sync_interval: always`: what `audit.durability = "stream"` stands on."""
    replicas: Annotated[int, Field(strict=True, ge=1, le=5)] = 1
    """Of every stream."""
    max_bytes: Annotated[int, Field(strict=True, ge=1 << 20, le=2**53)] = 512 << 20
    """What the audit stream may hold that no processor has stored, when it is made; a quarter of it for pieces."""
    timeout: Seconds = 5.0


class TelemetrySettings(Frozen):
    """OpenTelemetry and Prometheus."""

    otlp_endpoint: StrictStr | None = None
    """`http(s)://HOST:4318`: traces and metrics are sent there."""
    traces: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of calls that are traced when the caller has not decided it."""
    metrics: Bind | None = None
    """Where `/metrics` is served without a key; None: only beside the API, for scope `admin`."""


class OAuthSettings(Frozen):
    """The OAuth 2.1 authorization server whose tokens are accepted, and how their claims are read."""

    issuer: StrictStr
    resource: StrictStr
    """This gateway's own URL: the audience that a token must be bound to (RFC 8707)."""
    jwks_url: StrictStr
    algorithms: Strings = ("RS256", "PS256", "ES256", "EdDSA")
    leeway: Annotated[int, Field(strict=True, ge=0, le=300)] = 30
    tenant: StrictStr = "default"
    tenant_claim: StrictStr | None = None
    roles_claim: StrictStr = "roles"
    scopes: Strings = ("tool:call",)
    """The scopes a token can carry at all."""


class Settings(Frozen):
    """Everything one process was told."""

    data: Path
    policies: Path | str | None = None
    """A folder or file that exists, or the name of a starter policy (`observe`, `allow_all`, ...); None: not said."""
    http: Bind = Bind(host="127.0.0.1", port=8080)
    grpc: Bind = Bind(host="127.0.0.1", port=50051)
    anonymous: str | None = None
    """The role of requests without a key; None: they are refused."""
    servers: tuple[ServerSettings, ...] = ()
    budgets: tuple[Budget, ...] = ()
    audit: AuditSettings = AuditSettings()
    policy: PolicySettings = PolicySettings()
    limits: LimitsSettings = LimitsSettings()
    oauth: OAuthSettings | None = None
    postgres: PostgresSettings | None = None
    redis: RedisSettings | None = None
    nats: NatsSettings | None = None
    telemetry: TelemetrySettings = TelemetrySettings()
    audit_mac_key: SecretStr | None = None
    """Every tenant's MAC key is derived from it; None: keys of the data folder."""
    audit_signing_key: SecretStr | None = None
    """Ed25519 private key, PEM; None: the one of the data folder."""
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes that serve, under a supervisor that replaces them; None: this one, alone."""
    watchdog_seconds: Seconds = 2.0
    """Seconds of processor time without a sign of life after which a worker is ended and replaced."""
    deny_as: Literal["result", "error"] = "result"
    allowed_hosts: tuple[str, ...] = ()
    """Names besides loopback and the bind's own that the Host header may carry."""
    allowed_origins: tuple[str, ...] = ()
    admin_key: SecretStr | None = None
    state_keys: tuple[SecretStr, ...] = ()
    """The first seals, all open."""
    config: Path | None = None
    """The file this was read from."""
    warnings: tuple[str, ...] = ()
    """What was odd but not wrong; said once at start."""
