"""What the JWT verifier must know about the authorization server."""

from dataclasses import dataclass

__all__ = ["SAFE_ALGORITHMS", "JwtConfig"]

SAFE_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""Signatures with a public key. Shared secrets and `none` are never accepted."""


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """One issuer, one audience (this gateway's own URL, RFC 8707), and how claims are read."""

    issuer: str
    resource: str
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    leeway: int = 30
    """Seconds that clocks may differ."""
    tenant: str = "default"
    tenant_claim: str | None = None
    """When set, this claim names the tenant and must be there."""
    roles_claim: str = "roles"
    scopes: frozenset[str] = frozenset({"tool:call"})
    """The scopes that a token can carry at all; others in it grant nothing."""

    def __post_init__(self) -> None:
        if not self.issuer or not self.resource or not self.algorithms or not set(self.algorithms) <= SAFE_ALGORITHMS:
            raise ValueError("issuer, resource and algorithms with a public key are needed")
