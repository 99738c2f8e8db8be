"""Several kinds of credential at one door: each goes to the verifier of its kind, and nowhere else."""

import re
from collections.abc import Callable

from fulcrum_adapters.identity.presented import token_of
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.ports import Credentials, IdentityVerifier

__all__ = ["IdentityChain"]

_JWT = re.compile(r"ey[^.]*\.[^.]*\.[^.]*\Z")


class IdentityChain:
    """`IdentityVerifier` over API keys and, where configured, JWTs and anonymous requests.

    What is presented decides who judges it; a refused credential is never tried elsewhere.
    """

    def __init__(
        self,
        keys: IdentityVerifier,
        *,
        tokens: IdentityVerifier | None = None,
        anonymous: IdentityVerifier | None = None,
        forget: Callable[[], None] | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._anonymous = anonymous
        self._forget = forget

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated` or `Unavailable`."""
        authorization = credentials.authorization
        if authorization is None and credentials.api_key is None and self._anonymous is not None:
            return await self._anonymous.verify(credentials)
        if self._tokens is not None and authorization is not None and _JWT.match(token_of(credentials)):
            return await self._tokens.verify(credentials)
        return await self._keys.verify(credentials)

    def forget(self) -> None:
        """Ask again for every key: the revision has changed."""
        if self._forget is not None:
            self._forget()
