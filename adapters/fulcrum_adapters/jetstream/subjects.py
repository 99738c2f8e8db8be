"""Names as tokens of NATS subjects, and back; and which subjects there are.

A token may not hold dots, spaces, `*` or `>`. Letters, digits, `-` and `_` stand for themselves, every other byte of
the name's UTF-8 as `=XX`; the empty name is `=`. What was not made here is refused, so that one name has one token.
"""

import re

from fulcrum_mcp.errors import Invalid

__all__ = [
    "AUDIT",
    "CONFIG",
    "PIECES",
    "STORED",
    "audit_subject",
    "name_of",
    "piece_subject",
    "stored_subject",
    "tenant_of",
    "token_of",
]

AUDIT = "fulcrum.audit"
"""`fulcrum.audit.<tenant>`: parcels."""
PIECES = "fulcrum.pieces"
"""`fulcrum.pieces.<parcel>.<piece>`: pieces of parcels that are larger than one message."""
STORED = "fulcrum.stored"
"""`fulcrum.stored.<chain>`: how far the archive has a chain."""
CONFIG = "$KV.FULCRUM_CONFIG.revision"
"""The key of the bucket FULCRUM_CONFIG, as a subject."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
_LONGEST = 1024


def token_of(name: str) -> str:
    """A name as one token. Raises `Invalid` when it is too long for a subject."""
    raw = name.encode("utf-8", "surrogatepass")
    token = "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in raw) or "="
    if len(token) > _LONGEST:
        raise Invalid(f"the name {name[:40]!r}... is too long for a NATS subject; shorten the tenant's name")
    return token


def name_of(token: str) -> str:
    """The name that a token stands for. Raises `Invalid` for what `token_of` does not make."""
    if token == "=":  # noqa: S105 - the token of a name
        return ""
    if _TOKEN.fullmatch(token) is None:
        raise Invalid(f"{token[:40]!r} is not a token of ours")
    raw = b"".join(
        bytes.fromhex(part[1:]) if part.startswith("=") else part.encode()
        for part in re.findall(r"=[0-9A-F]{2}|[^=]+", token)
    )
    try:
        name = raw.decode("utf-8", "surrogatepass")
    except ValueError:
        raise Invalid(f"{token[:40]!r} is not a token of ours") from None
    if token_of(name) != token:
        raise Invalid(f"{token[:40]!r} is not a token of ours")
    return name


def audit_subject(tenant: str) -> str:
    """Where a tenant's parcels are published."""
    return f"{AUDIT}.{token_of(tenant)}"


def tenant_of(subject: str) -> str | None:
    """Whose parcels are published there; None when it is no such subject."""
    head, _, token = subject.rpartition(".")
    if head != AUDIT:
        return None
    try:
        return name_of(token)
    except Invalid:
        return None


def piece_subject(parcel: str, piece: str) -> str:
    """Where one piece of a large parcel is published, by tokens; `*`: all of them."""
    return f"{PIECES}.{parcel}.{piece}"


def stored_subject(chain: str) -> str:
    """Where it is said how far the archive has a chain."""
    return f"{STORED}.{token_of(chain)}"
