"""API keys as text, and the scopes that a credential may carry: formats and comparisons, no randomness."""

import hashlib
import hmac
import re
from typing import NamedTuple

from fulcrum_mcp.core.call import Principal

__all__ = ["MIN_SECRET", "PREFIX", "SCOPES", "Presented", "allows", "digest", "format_key", "matches", "parse_key"]

PREFIX = "flcrm_sk_"
MIN_SECRET = 32
"""Characters. A secret shorter than this is never a key."""
_MAX_TOKEN = 512

SCOPES: dict[str, str] = {
    "policy:read": "read policies and their revisions",
    "policy:write": "change policies",
    "policy:approve": "answer approval requests",
    "cost:read": "read budgets and what was spent",
    "cost:write": "change budgets",
    "api_key:read": "list keys",
    "api_key:write": "make and revoke keys",
    "audit:read": "read the audit trail",
    "tool:call": "call tools through the MCP faces",
    "admin": "everything in one tenant",
    "platform": "everything in every tenant",
}

_KEY = re.compile(r"flcrm_sk_([a-z0-9]{1,40})_([A-Za-z0-9]{32,256})\Z")
_OPAQUE = re.compile(r"[\x21-\x7e]{32,512}\Z")


class Presented(NamedTuple):
    """A key taken apart: the id it is stored under and the secret that proves it."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Presented(id={self.id!r})"


def parse_key(token: str) -> Presented | None:
    """Take a token apart; None when it cannot be a key.

    Besides our own form any 32 to 512 visible ASCII characters are accepted, for operators who bring a secret of
    their own (`FULCRUM_ADMIN_KEY`); such a key is stored under an id made from its hash.
    """
    if len(token) > _MAX_TOKEN:
        return None
    found = _KEY.match(token)
    if found is not None:
        return Presented(found[1], found[2])
    if token.startswith(PREFIX) or _OPAQUE.match(token) is None:
        return None
    return Presented("x" + hashlib.sha256(b"id:" + token.encode()).hexdigest()[:16], token)


def format_key(key_id: str, secret: str) -> str:
    """The text that a client presents."""
    return f"{PREFIX}{key_id}_{secret}"


def digest(secret: str) -> str:
    """SHA-256 (hex): all that is stored of a secret. Secrets are long and random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored: str) -> bool:
    """Compare a secret with a stored digest in constant time."""
    return hmac.compare_digest(digest(secret), stored)


def allows(principal: Principal, scope: str) -> bool:
    """Whether a principal has a scope: by name, or through `admin` (all but `platform`) or `platform` (all)."""
    held = principal.scopes
    return scope in held or "platform" in held or ("admin" in held and scope != "platform")
