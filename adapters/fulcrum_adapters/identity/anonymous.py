"""Requests without a credential, on loopback only, where the operator allowed them."""

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["AnonymousVerifier"]


class AnonymousVerifier:
    """`IdentityVerifier` for requests that present nothing: principal `anonymous` of tenant `default`."""

    def __init__(self, role: str) -> None:
        self._principal = Principal(
            tenant="default", agent="anonymous", key="anonymous", roles=(role,), scopes=frozenset({"tool:call"})
        )

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated` for anybody else, and for requests that came over a proxy or the network."""
        if credentials.authorization is not None or credentials.api_key is not None:
            raise Unauthenticated("this credential is not valid; send a valid one, or none")
        if credentials.forwarded or not credentials.loopback:
            raise Unauthenticated(
                "requests without a key are accepted from this machine only, not through a proxy; send a key"
            )
        return self._principal
