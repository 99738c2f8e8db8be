"""Who calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fulcrum_mcp.core.call import Principal

__all__ = ["ApiKey", "Credentials", "IdentityVerifier", "KeyRepository"]


class Credentials(NamedTuple):
    """What a request carries to say who it is; values only ever pass through memory."""

    authorization: str | None = None
    api_key: str | None = None
    forwarded: bool = False
    """A proxy's forwarding header was present."""
    loopback: bool = False


class IdentityVerifier(Protocol):
    """Turns a credential into a principal."""

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated` (the message never quotes the credential) or `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: never its secret, only the secret's SHA-256 (hex, left out of repr)."""

    id: str
    tenant: str
    agent: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    require_envelope: bool = False
    digest: str = field(default="", repr=False)


class KeyRepository(Protocol):
    """API keys, *synchronous* (short statements; the control plane runs them in a worker thread)."""

    def add(self, key: ApiKey) -> None:
        """Raises `Conflict` when the id is taken."""
        ...

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant: for authentication only."""
        ...

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        ...

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent. Raises `NotFound`, also for another tenant's key."""
        ...
