"""Principals by token, in memory: for tests and dry runs."""

from collections.abc import Mapping

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["MemoryIdentity"]


class MemoryIdentity:
    """`IdentityVerifier` that knows the tokens it was given."""

    def __init__(self, principals: Mapping[str, Principal]) -> None:
        self._principals = dict(principals)

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated`."""
        token = credentials.api_key or (credentials.authorization or "").removeprefix("Bearer ")
        principal = self._principals.get(token)
        if principal is None:
            raise Unauthenticated("this key is not known; ask for one that is.")
        return principal
