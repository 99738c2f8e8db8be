"""The one credential of a request."""

from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import Credentials

__all__ = ["MAX_TOKEN", "token_of"]

MAX_TOKEN = 16_384
"""Characters. Nothing longer is looked at."""

_MISSING = "no credential; send Authorization: Bearer KEY, or X-API-Key: KEY"


def token_of(credentials: Credentials) -> str:
    """The token. Raises `Unauthenticated` when there is none, two that differ, or one in an unknown form."""
    authorization, api_key = credentials.authorization, credentials.api_key
    if authorization is None:
        token = api_key
    else:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" and scheme.lower() != "bearer":
            raise Unauthenticated("only the Bearer scheme is understood; send Authorization: Bearer KEY")
        token = token.strip(" ")
        if api_key is not None and api_key != token:
            raise Unauthenticated("Authorization and X-API-Key differ; send one of them")
    if not token:
        raise Unauthenticated(_MISSING)
    if len(token) > MAX_TOKEN:
        raise Unauthenticated("the credential is too long to be one of ours")
    return token
