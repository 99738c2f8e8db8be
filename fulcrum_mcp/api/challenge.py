"""How a client learns where to get a token: metadata (RFC 9728) and the challenge on 401 (RFC 6750)."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = ["WELL_KNOWN", "challenge", "metadata_document", "metadata_url"]

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def metadata_url(resource: str) -> str:
    """Where the metadata of a resource lies: the well-known part goes between host and path (RFC 9728 section 3.1)."""
    parts = urlsplit(resource)
    return urlunsplit((parts.scheme, parts.netloc, WELL_KNOWN + parts.path.rstrip("/"), "", ""))


def metadata_document(resource: str, issuer: str, scopes: Sequence[str]) -> dict[str, Any]:
    """The metadata itself (RFC 9728 section 2)."""
    return {
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": list(scopes),
        "bearer_methods_supported": ["header"],
        "resource_name": "Fulcrum",
    }


def challenge(resource: str | None, *, presented: bool, scope: str | None = None) -> str:
    """The value of `WWW-Authenticate`. `presented`: a credential was refused; `scope`: the one that is missing."""
    parts = ['realm="fulcrum"']
    if scope is not None:
        parts += ['error="insufficient_scope"', f'scope="{scope}"']
    elif presented:
        parts.append('error="invalid_token"')
    if resource is not None:
        parts.append(f'resource_metadata="{metadata_url(resource)}"')
    return "Bearer " + ", ".join(parts)
