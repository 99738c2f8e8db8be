"""Keyed digests: what stands in a record for arguments and results. Without the key no guess can be checked."""

import hmac

__all__ = ["mac"]


def mac(key: bytes, message: bytes) -> str:
    """`hmac-sha256:<hex>` of a message under a tenant's key (32 bytes)."""
    return "hmac-sha256:" + hmac.digest(key, message, "sha256").hex()
