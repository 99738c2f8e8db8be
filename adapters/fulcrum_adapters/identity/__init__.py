"""Who calls: API keys, OAuth access tokens, and anonymous requests where the operator allowed them."""

from fulcrum_adapters.identity.anonymous import AnonymousVerifier
from fulcrum_adapters.identity.cache import PrincipalCache
from fulcrum_adapters.identity.chain import IdentityChain
from fulcrum_adapters.identity.config import JwtConfig
from fulcrum_adapters.identity.fetch import jwks_fetch
from fulcrum_adapters.identity.jwks import KeySet
from fulcrum_adapters.identity.jwt import JwtVerifier
from fulcrum_adapters.identity.keys import ApiKeyVerifier

__all__ = [
    "AnonymousVerifier",
    "ApiKeyVerifier",
    "IdentityChain",
    "JwtConfig",
    "JwtVerifier",
    "KeySet",
    "PrincipalCache",
    "jwks_fetch",
]
