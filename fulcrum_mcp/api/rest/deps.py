"""What the REST face needs, handed in by the composition root."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fulcrum_mcp.control.budgets import Budgets
from fulcrum_mcp.control.keys import Keys
from fulcrum_mcp.control.policies import Policies
from fulcrum_mcp.control.servers import Servers
from fulcrum_mcp.control.switches import Switches
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.ports import AuditQuery, DecisionRecord, IdentityVerifier, Metric, StoredRecord

__all__ = ["AuditTrail", "OAuthMetadata", "RestDeps"]


class AuditTrail(Protocol):
    """Questions to the trail, *synchronous*, of the principal's own tenant only, with the scope `audit:read`."""

    def query(self, principal: Principal, query: AuditQuery) -> Sequence[StoredRecord]:
        """The query's `tenant` is not believed. Raises `Unprivileged`, `Unavailable`."""
        ...

    def decision(self, principal: Principal, decision_id: str) -> DecisionRecord:
        """Raises `Unprivileged`, `NotFound`, `Unavailable`."""
        ...

    def export(self, principal: Principal) -> Iterator[bytes]:
        """Lines with their line breaks, the manifest last; all steps on one thread. Raises as `query`."""
        ...


@dataclass(frozen=True, slots=True)
class OAuthMetadata:
    """The protected resource as RFC 9728 tells it."""

    resource: str
    issuer: str
    scopes: tuple[str, ...]


async def _no_metrics() -> Sequence[Metric]:
    return ()


@dataclass(frozen=True, slots=True)
class RestDeps:
    """`refuses` says why a Host and an Origin are refused, or None (`api.mcp.origin`)."""

    identity: IdentityVerifier
    keys: Keys
    budgets: Budgets
    switches: Switches
    policies: Policies
    servers: Servers
    audit: AuditTrail
    refuses: Callable[[str | None, str | None], str | None]
    oauth: OAuthMetadata | None = None
    metrics: Callable[[], Awaitable[Sequence[Metric]]] = _no_metrics
    operator: str = ""
    """The tenant to whom the figures of the whole process belong."""
    max_body: int = 64 * 1024
    max_policies: int = 8 * 1024 * 1024
    """Bytes of a whole policy folder."""
